"""A spool: the folder in which a search asks, and jobs on machines without a network answer.

    spool.json                  the format's version
    requests/OWNER.LIFE.jsonl   what one driver asks; each start of it writes a file of its own
    claims/ID.GENERATION        created exclusively by the job that judges the request, whose name it holds
    results/JOB.jsonl           what one job found
    jobs/JOB.json               the job's sign of life, replaced every `BEAT_S`

Each file has one writer for ever, so nobody repairs what a killed process left: the half of a line at the
end of its file is no line to any reader, and the next process writes another file. Claims rest on exclusive
creation alone, which network file systems keep, and on no lock. No two machines' clocks are compared: a job
is gone when its sign of life has not changed for a while on the reader's own clock, or says that it ended.
Then the claim of the next generation decides who takes its requests over.

`files` has the format, `jobs` who is alive and who judges what; the server drains it, the backend `spool`
asks through it.
"""
