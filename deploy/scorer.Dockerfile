# The scorer, the predict server and the batch half but for training: docker build -f deploy/scorer.Dockerfile .
FROM python:3.10.18-slim-bookworm

# openmldb's and scikit-learn's wheels need OpenMP
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*

# As `make environments` lays it out, so that deploy.environments finds its interpreters.
ENV JD_ENVS=/opt/envs
RUN python -m venv /opt/envs/scorer
ENV PATH=/opt/envs/scorer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/var/cache/jd

# The pins first: this layer changes only with them.
COPY deploy/requirements/build.txt deploy/requirements/scorer.txt /tmp/
RUN pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement /tmp/build.txt \
    && pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement /tmp/scorer.txt

WORKDIR /app
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY streaming streaming
COPY batch batch
COPY deploy deploy
COPY sql sql
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

# Volumes take over the owner of what lies in their place.
RUN useradd --system --uid 10001 --create-home jd \
    && mkdir --parents /data /var/lib/jd-intent /var/lib/jd-intent-state /var/cache/jd \
    && chown jd: /data /var/lib/jd-intent /var/lib/jd-intent-state /var/cache/jd
USER jd

EXPOSE 9108 9080
CMD ["jd-intent-score", "run", "--config", "deploy/scorer.toml"]
