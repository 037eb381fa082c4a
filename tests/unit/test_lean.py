"""What is left out of the memory of a service, and that nothing is missing for it."""

import subprocess
import sys

NAMES = ["rich", "pygments", "greenlet", "charset_normalizer", "chardet", "cryptography"]

IMPORTS = f"""
import sys
import agent.log, engines.influxdb.driver, engines.mongodb.driver, engines.mysql.driver
agent.log.make_log("info").info("works", text="\u017c")
print([name for name in {NAMES} if name in sys.modules], file=sys.stderr)
"""


def test_a_service_does_without_what_it_never_uses():
    ran = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert '"event":"works"' in ran.stdout


AFTERWARDS = """
import json
from engines.lean import without
with without("json", "xml.dom.minidom"):
    import json as again
    try:
        import xml.dom.minidom
    except ImportError:
        print("left out")
import xml.dom.minidom
assert again is json
assert xml.dom.minidom.parseString("<a/>")
"""


def test_what_was_left_out_can_be_imported_afterwards_and_what_was_there_stays():
    ran = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=True)
    assert ran.stdout == "left out\n"


KEY = """
import base64
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
key = rsa.generate_private_key(65537, 2048)
form = serialization.PublicFormat.SubjectPublicKeyInfo
print(base64.b64encode(key.public_key().public_bytes(serialization.Encoding.PEM, form)).decode())
"""

ENCRYPT = """
import base64, sys
import engines.mysql.driver
from pymysql import _auth
assert "cryptography" not in sys.modules
print(len(_auth.sha2_rsa_encrypt(b"password", b"12345678901234567890", base64.b64decode(sys.argv[1]))))
assert "cryptography" in sys.modules
"""


def test_a_password_is_encrypted_for_a_server_that_asks_for_it():
    made = subprocess.run([sys.executable, "-c", KEY], capture_output=True, text=True, check=True)
    ran = subprocess.run(
        [sys.executable, "-c", ENCRYPT, made.stdout.strip()], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "256"
