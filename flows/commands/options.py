"""What many commands are given in the same way. What a run is asked to do: `flows/request.py`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.request import KeyedLocation, LocatedRequest, Location, ResumeRequest

Json = Annotated[bool, Parameter(help="Print one JSON object.")]
Verbose = Annotated[bool, Parameter(name=("--verbose", "-v"), help="Show the log's records of level INFO.")]
DryRun = Annotated[bool, Parameter(help="Make nothing, and print what it would cost.")]
Session = Annotated[str, Parameter(help="The session's name, as the list shows it.")]

FIELDS = Parameter(name="*")
"""The fields of a request are options of their own."""

AtLocation = Annotated[Location, FIELDS]
AtKeyedLocation = Annotated[KeyedLocation, FIELDS]
AtLocated = Annotated[LocatedRequest, FIELDS]
AtResume = Annotated[ResumeRequest, FIELDS]

HERE = Location()
WITH_KEYS = KeyedLocation()
AS_CONFIGURED = LocatedRequest()
AS_BEGUN = ResumeRequest()
