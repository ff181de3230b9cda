"""The access keys of the tests, which no AWS ever issued."""

from botocore.credentials import Credentials

STATIC_KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY_KEY = Credentials("ASIDEXAMPLE", "bPxRfiCYEXAMPLEKEY/K7MDENG+wJalrXUtnFEMI", "FwoGZXIvYXdzEXAMPLE//token==")
# A client's own, which no server knows.
THROWAWAY = Credentials("THROWAWAY", "throw-away")
THROWAWAY_SESSION = Credentials("THROWAWAY", "throw-away", "throw-away token")
