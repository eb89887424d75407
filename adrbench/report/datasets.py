"""What a report knows of the built-in data sets, which it can read without torch."""

#: The number of test images of each; none has a validation part of its own.
TEST_SIZES = {"digits": 360, "cifar10": 10_000, "cifar100": 10_000, "tiny-imagenet": 10_000}
