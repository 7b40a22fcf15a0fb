"""``bloomery verify``: does an endpoint say what the model says, as far as its number format allows?"""
