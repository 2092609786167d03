"""What commands share on a terminal: options, exit codes and output."""
