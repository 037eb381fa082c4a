# dbvalet in a container: docker build -t dbvalet .
#
# BASE is an image of Debian or Ubuntu, with Python 3.11 or later or with none: it then comes from their packages.
# PIP_INDEX_URL names another package index. A file ca.crt beside this one (never kept in the image) holds the
# certificate authorities to check the index against, where its certificate is from one of your own.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS python
RUN command -v python3 \
 || { apt-get update && apt-get install --yes --no-install-recommends ca-certificates python3 \
   && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; }

FROM python AS build
RUN python3 -m pip --version \
 || { apt-get update && apt-get install --yes --no-install-recommends python3-pip; }
WORKDIR /build
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# A pattern that matches nothing is no error beside one that does.
COPY requirements/build.lock requirements/run.lock ca.cr[t] ./
RUN if [ -e ca.crt ]; then export PIP_CERT=/build/ca.crt; fi \
 && python3 -m venv --without-pip /opt/dbvalet \
 && python3 -m pip --python /opt/dbvalet/bin/python install --only-binary :all: --require-hashes --requirement run.lock \
 && python3 -m pip install --target backend --only-binary :all: --require-hashes --requirement build.lock
COPY pyproject.toml README.md ./
COPY agent agent
COPY engines engines
RUN PYTHONPATH=backend python3 -m pip --python /opt/dbvalet/bin/python install --no-deps --no-index --no-build-isolation .

FROM python
# The engines' own programs for backups, where they are wanted: --build-arg PACKAGES="pgbackrest postgresql-client".
ARG PACKAGES
RUN if [ -n "$PACKAGES" ]; then \
        apt-get update && apt-get install --yes --no-install-recommends $PACKAGES \
     && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*; fi
# Python's own image brings pip, but nothing is installed in a running container, and nobody changes who they are there.
RUN if python3 -m pip --version; then \
        python3 -m pip uninstall --yes --root-user-action ignore pip || apt-get purge --yes --auto-remove python3-pip; fi \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && rm -rf "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/ensurepip" \
 && echo 'dbvalet:x:10001:' >> /etc/group \
 && echo 'dbvalet:x:10001:10001:dbvalet:/var/lib/dbvalet:/usr/sbin/nologin' >> /etc/passwd \
 && mkdir --mode 0700 /var/lib/dbvalet \
 && chown 10001:10001 /var/lib/dbvalet
COPY --from=build /opt/dbvalet /opt/dbvalet
# In a container loopback is the container's own. Who reaches it is decided by what is published, and plain HTTP is for a
# private network only: with DBVALET_TLS, or tls in the configuration, it is not spoken.
ENV PATH=/opt/dbvalet/bin:/usr/local/bin:/usr/bin:/bin \
    DBVALET_LISTEN=0.0.0.0:8000 \
    DBVALET_INSECURE_LISTEN=true \
    DBVALET_STATE=sqlite:////var/lib/dbvalet/state.db
LABEL org.opencontainers.image.title="dbvalet" \
      org.opencontainers.image.description="Named actions on live self-hosted databases, over one HTTP API" \
      org.opencontainers.image.licenses="Apache-2.0"
# The number, not the name: Kubernetes can see that it is not root's.
USER 10001:10001
WORKDIR /var/lib/dbvalet
VOLUME /var/lib/dbvalet
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/opt/dbvalet/bin/python", "-I", "-m", "agent.healthcheck"]
ENTRYPOINT ["dbvalet"]
CMD ["serve"]
