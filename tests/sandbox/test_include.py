"""AWS::Include of a template takes a local file, as ``sam package`` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.stack import StackError, load

TEMPLATE = """\
Resources:
  Document:
    Type: AWS::SSM::Document
    Properties:
      Content:
        Fn::Transform: {Name: %s, Parameters: {Location: documents/a.yaml}}
"""


def test_a_file_is_taken_from_beside_the_template(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.yaml").write_text('{schemaVersion: "2.2", x: [1]}')
    (tmp_path / "template.yaml").write_text(TEMPLATE % "AWS::Include")
    template = load(tmp_path / "template.yaml")
    assert template["Resources"]["Document"]["Properties"]["Content"] == {
        "schemaVersion": "2.2",
        "x": [1],
    }


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("AWS::Include", "a.yaml: No such file"), ("Mine", "Fn::Transform Mine: the sandbox has")],
)
def test_what_is_not_there_is_an_error(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "template.yaml").write_text(TEMPLATE % name)
    with pytest.raises(StackError, match=complaint):
        load(tmp_path / "template.yaml")
