"""Small synthetic tasks that show what a part of the network can learn, in minutes on a CPU."""
