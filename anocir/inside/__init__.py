"""The container's side: what the second, sealed interpreter does until execve."""
