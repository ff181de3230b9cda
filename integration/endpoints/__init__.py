"""botocore's endpoints, as data for the tests of the filter's own table."""
