"""The version of the app, which the files that it writes carry, too."""

VERSION = "0.1.0"
