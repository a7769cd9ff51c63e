"""Programs shipped with the system, written on the guest SDK. Each is uploaded as it stands: `cadenza run chat.py`."""
