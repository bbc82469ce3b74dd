"""The HTTP service: a picture in, a picture out. One thread does the work of all requests, one after the other.

- server.py runs uvicorn. app.py has the endpoints, guard.py checks each request first.
- body.py reads a request, options.py its options, formats.py chooses the format of the result.
- queue.py limits and orders the requests, networks.py keeps the networks, work.py converts one picture.
- refusals.py has the error replies, metrics.py what Prometheus reads.
"""

from perceptual.serve.server import Address, running

__all__ = ["Address", "running"]
