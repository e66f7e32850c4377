"""The handlers of the shop. They keep nothing: all that an event says comes from its command."""

import msgspec

from gateway import Command, Event, Outcome, Rejected, handles

PRICES = {"tea-250": 780, "coffee-500": 1290, "cocoa-250": 650, "filters-100": 345}
"""Cents for one."""

LARGEST_ORDER = 100
"""Pieces that the shop can pack at once."""


class PlaceOrder(msgspec.Struct):
    customer: str
    sku: str
    qty: int
    tier: str = "standard"


class ShipOrder(msgspec.Struct):
    order: str
    customer: str
    tracking: str = ""
    tier: str = "standard"


@handles("order.place", retries=5, timeout=10)
async def place_order(command: Command[PlaceOrder]) -> Outcome:
    """Accept an order, or reject it: either way the browsers get an event that says so."""
    wish = command.data
    order = {
        "order": command.id,
        "customer": wish.customer,
        "sku": wish.sku,
        "qty": wish.qty,
        "placed_at": command.time,
    }
    reason = refusal(wish)
    if reason:
        order |= {"status": "rejected", "reason": reason}
    else:
        order |= {"status": "accepted", "total": PRICES[wish.sku] * wish.qty / 100}
    event = Event(f"order.{order['status']}", subject=command.id, data=order)
    return Outcome([event], result=order)


def refusal(wish: PlaceOrder) -> str | None:
    """Return why an order cannot be taken, or None."""
    if wish.sku not in PRICES:
        return f"there is no {wish.sku} in this shop"
    if wish.qty > LARGEST_ORDER:
        return f"at most {LARGEST_ORDER} can be packed at once"
    return None


@handles("order.ship", retries=5, timeout=10)
async def ship_order(command: Command[ShipOrder]) -> list[Event]:
    """Ship an order. `Rejected` is a no that is final: the command fails, and is not retried."""
    parcel = command.data
    if not parcel.tracking:
        raise Rejected("an order is shipped only with a tracking number")
    shipped = {
        "order": parcel.order,
        "customer": parcel.customer,
        "status": "shipped",
        "tracking": parcel.tracking,
    }
    return [Event("order.shipped", subject=parcel.order, data=shipped)]
