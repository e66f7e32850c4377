"""The handlers of the parcels. Who sent a command they know from the gateway, not from its data."""

import msgspec

from gateway import Command, Event, handles


class Move(msgspec.Struct):
    parcel: str
    recipient: str
    place: str


class Note(msgspec.Struct):
    parcel: str
    recipient: str
    text: str


@handles("parcel.move", retries=5, timeout=10)
async def move(command: Command[Move]) -> Event:
    """Tell where a parcel is."""
    parcel = command.data
    data = {"parcel": parcel.parcel, "recipient": parcel.recipient, "place": parcel.place}
    return Event("parcel.moved", subject=parcel.parcel, data=data)


@handles("parcel.note", retries=5, timeout=10)
async def note(command: Command[Note]) -> Event:
    """Tell what somebody has to say about a parcel, and who that is."""
    parcel = command.data
    data = {
        "parcel": parcel.parcel,
        "recipient": parcel.recipient,
        "text": parcel.text,
        "by": command.authid,
    }
    return Event("parcel.noted", subject=parcel.parcel, data=data)
