"""The endpoints that botocore knows, as data for the tests of the filter's own table."""
