"""The commands, a module each: ``Args``, its options, and ``run(args)``; ``training/cli.py`` picks one."""
