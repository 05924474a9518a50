"""OAuth: a person is sent to the platform and comes back; what came of it waits for the driver that asked for it.

state.py     what goes to the platform and back with the person: signed, of one use, soon void
grants.py    what a return came to, sealed, until the driver exchanges its code
visits.py    the two visits of a person: on the way to the platform, and back
exchange.py  the driver's exchange of the code: only now anything is enabled
"""
