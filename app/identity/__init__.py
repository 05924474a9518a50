"""Identity: MetagovIDs, and the platform accounts that are linked to them."""
