"""`testbed simulate`: a model or a recording behind an OPC UA server, or on a broker of sensors."""
