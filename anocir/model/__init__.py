"""From config.json to a plan: values in, values out, no system call."""
