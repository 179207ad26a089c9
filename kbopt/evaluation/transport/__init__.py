"""Exchange between processes: messages, the layout of tensors, shared memory, CUDA IPC."""
