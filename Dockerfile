# One image for every role; the command chooses which. PIP_ARGS chooses the torch build:
#   docker build --build-arg PIP_ARGS="--index-url URL" -t lora-alpha .
FROM python:3.11-slim

ARG PIP_ARGS=""
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 LORA_ALPHA_HOME=/data

RUN useradd --create-home app && mkdir /data && chown app /data
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY lora_alpha lora_alpha
COPY backend backend
COPY workers workers
COPY dashboard dashboard
COPY command_line command_line
RUN pip install ${PIP_ARGS} --constraint constraints.txt '.[all]'

USER app
VOLUME /data
ENTRYPOINT ["lora-alpha"]
CMD ["api", "--host", "0.0.0.0"]
