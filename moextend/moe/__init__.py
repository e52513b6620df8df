"""The mathematics: routers and experts of each family, the routing modes, attaching experts."""
