"""Run passes on workers that another engine starts and watches, on this machine or on others.

An *engine* is a thin `concurrent.futures.Executor` over Ray, Dask or an executor of the user's, each in a module of its
own, imported only when it is named (`opening`). `cluster.Cluster` runs passes on any of them. What runs on the workers
is in `work`: it depends on no engine. Workers share the folders of a job with the process that drives it, so data goes
through files, and engines carry only tasks, small records and errors.
"""
