"""The API's answers as pydantic models, one per noun: the server writes them, clients read them."""
