"""The access keys of the tests, which no AWS ever issued."""

from botocore.credentials import Credentials

STATIC_KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY_KEY = Credentials("ASIDEXAMPLE", "bPxRfiCYEXAMPLEKEY/K7MDENG+wJalrXUtnFEMI", "FwoGZXIvYXdzEXAMPLE//token==")
