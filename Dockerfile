# The command line in an image; docs/install.md says how to run it. Build arguments: PIP_INDEX_URL and pip's others.
FROM python:3.11-slim
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY alignrec_recbole alignrec_recbole
COPY properties properties
RUN pip install --no-cache-dir --no-deps --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0 && \
    pip install --no-cache-dir -c constraints.txt ".[dask]" && \
    pip install --no-cache-dir -c constraints.txt --no-deps recbole==1.2.1 thop
ENV MPLCONFIGDIR=/tmp/matplotlib PYTHONWARNINGS=ignore
WORKDIR /work
ENTRYPOINT ["alignrec-bench"]
