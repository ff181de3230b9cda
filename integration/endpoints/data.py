"""Reads the endpoint data of the Rust tests."""

from integration.stack.process import REPOSITORY

DATA = REPOSITORY / "src/core/tests/data/botocore-endpoints.tsv"
UNSIGNED_OPERATIONS = DATA.with_name("botocore-unsigned-operations.tsv")


def read_data() -> set[tuple[str, str, str]]:
    """Returns (host, signing name, signing region) of every line."""
    section, partitions, rows = None, {}, set()
    for line in DATA.read_text().splitlines():
        fields = line.split("\t")
        if line.startswith("#"):
            continue
        if line.startswith("["):
            section = line
        elif section == "[partitions]":
            partitions[fields[0]] = fields[1].split(" ")
        elif section == "[forms]":
            for group in fields[2].split(" "):
                partition, suffix = group.split(":")
                for region in partitions[partition]:
                    rows.add((fields[0].replace("{region}", region) + "." + suffix, fields[1], region))
        elif section == "[hosts]":
            rows.add(tuple(fields))
    return rows
