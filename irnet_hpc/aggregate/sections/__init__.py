"""The sections of the report, one question each: `section(findings)` makes a Section."""
