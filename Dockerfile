# The filter as a service: `conrec serve` over a finished run. No PyTorch, no language model, no compiler in the image.
#
#   docker build -t conrec .
#   docker run --read-only --tmpfs /tmp -v "$PWD/runs/mine:/run/conrec:ro" -p 8080:8080 conrec
#
# docs/deploy.md has Compose, Kubernetes, systemd, how a new version goes out, memory and alarms.
# `--build-arg EXTRAS=serve,valkey` for a store on a Valkey server.
ARG PYTHON=3.11
ARG EXTRAS=serve

FROM python:${PYTHON}-slim AS build
ARG EXTRAS
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN python -m pip wheel --no-cache-dir --constraint constraints.txt --wheel-dir /wheels ".[${EXTRAS}]"

FROM python:${PYTHON}-slim
ARG EXTRAS
# Numbers, not names: Kubernetes checks runAsNonRoot by number.
RUN groupadd --system --gid 10001 conrec && useradd --system --uid 10001 --gid 10001 --no-create-home conrec
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-index --find-links /wheels --root-user-action ignore "conrec[${EXTRAS}]"
# Nothing is written but the log to standard error, and to /tmp what numba compiled, where /tmp can be written.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
# Ready, not only alive: until the store is mapped and checked, no traffic.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ready', timeout=2)"]
# The exec form: the service is process 1 and gets SIGTERM itself; it finishes what it has begun and ends.
ENTRYPOINT ["conrec"]
CMD ["serve", "--run", "/run/conrec", "--host", "0.0.0.0", "--port", "8080"]
