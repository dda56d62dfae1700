"""Answering the rows of a file, however many: read, predicted and written batch by batch, in memory of a fixed size.

`shoal_agent.bulk.job` is the loop, `shoal_agent.bulk.command` the command line; nothing is imported here, because
``--help`` must not pay for numpy.
"""
