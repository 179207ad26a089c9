// Part of CUDA builds of torch only; torch's headers compile without its settings.
