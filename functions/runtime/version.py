"""The version, which pyproject.toml says too; Mackerel sees it in the User-Agent."""

VERSION = "0.1.0"
