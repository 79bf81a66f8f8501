"""What tests of several rooms share; one file a subject."""
