# Training, and Triton on CPU from nvidia-pytriton's wheel: docker build -f deploy/model.Dockerfile .
# The tutorial's GPU server is another image (docker-compose.yml, profile gpu).
FROM python:3.10.18-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# As `make environments` lays it out, so that deploy.environments finds its interpreters.
ENV JD_ENVS=/opt/envs
RUN python -m venv /opt/envs/model
ENV PATH=/opt/envs/model/bin:$PATH \
    PYTHONUNBUFFERED=1

# The pins first (3 GB with cuDNN, which OneFlow's wheel loads on CPU, too): this layer changes only with them.
COPY deploy/requirements/build.txt deploy/requirements/model.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement /tmp/build.txt \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement /tmp/model.txt

WORKDIR /app
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY streaming streaming
COPY batch batch
COPY deploy deploy
COPY sql sql
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# Volumes take over the owner of what lies in their place.
RUN useradd --system --uid 10001 --create-home jd \
    && mkdir --parents /var/lib/jd-intent /var/lib/triton \
    && chown jd: /var/lib/jd-intent /var/lib/triton
USER jd

EXPOSE 8000 8001 8002
CMD ["python", "-m", "deploy.triton.server", "--repository", "/var/lib/jd-intent/artifact/triton", \
     "--folder", "/var/lib/triton", "--host", "0.0.0.0"]
