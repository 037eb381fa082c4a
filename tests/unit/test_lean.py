"""What is left out of the memory of a service, and that nothing is missing for it."""

import subprocess
import sys

import pytest

from engines.lean import without

NAMES = ["rich", "pygments", "greenlet", "charset_normalizer", "chardet", "cryptography.x509"]

IMPORTS = f"""
import sys
import agent.log, engines.influxdb.driver, engines.mongodb.driver
agent.log.make_log("info").info("works", text="\u017c")
print([name for name in {NAMES} if name in sys.modules], file=sys.stderr)
"""


def test_a_service_does_without_what_it_never_uses():
    ran = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert '"event":"works"' in ran.stdout


def test_what_was_left_out_can_be_imported_afterwards_and_what_was_there_stays():
    import json

    with without("json", "xml.dom.minidom"):
        import json as again

        with pytest.raises(ImportError):
            import xml.dom.minidom
    import xml.dom.minidom

    assert again is json
    assert xml.dom.minidom.parseString("<a/>")
