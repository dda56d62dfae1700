"""The show: the main job end to end, on real data, with a fleet of simulated devices that run the real agent.

The only place where server, agent and converter meet in one program; nothing else imports it.
"""
