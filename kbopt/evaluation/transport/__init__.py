"""What processes exchange: messages, the layout of tensors, shared memory, CUDA IPC."""
