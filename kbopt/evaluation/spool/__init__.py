"""A spool: a shared folder with the requests of a search and the results of jobs that need no network.

    spool.json                  the format's version
    requests/OWNER.LIFE.jsonl   one driver's requests; each start of the driver writes a new file
    claims/ID.GENERATION        created by the job that judges the request; it holds the job's name
    results/JOB.jsonl           one job's results
    jobs/JOB.json               the job's heartbeat, replaced every `BEAT_S` seconds

Each file has only one writer ever, so a file of a killed process needs no repair: readers ignore half a line
at its end, and the next process writes a new file. Claims use exclusive creation (O_EXCL), which network file
systems support, and no locks. Clocks of different machines are never compared. A job counts as gone if its
heartbeat has not changed for `TAKEOVER_S` seconds on the reader's clock, or says that it ended. Then the job
that creates the claim of the next generation takes over its requests.

`files` has the format, and `jobs` the heartbeats and claims. `server.draining` answers requests, and
`kbopt.backends.spool` writes them.
"""
