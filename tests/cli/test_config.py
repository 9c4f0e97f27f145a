"""serve --config: every option from a file, and what is wrong with it by file and line."""

from __future__ import annotations

import re

import pytest

from midinet.cli.app import run_app

# In a file; the line that is to blame; and what it is blamed for.
WRONG = [
    ("max-clients = 0", 1, "max-clients must be a whole number of 1 or more, not 0"),
    ("\n\nmax_clients = '12'", 3, "max-clients must be a whole number of 1 or more, not '12'"),
    ("max-clients = true", 1, "max-clients must be a whole number of 1 or more, not true"),
    ("max-clients = 1.5", 1, "not 1.5"),
    ("stats-every = 0", 1, "stats-every must be a number of 0.1 or more, not 0"),
    ("channel = [1,\n17]", 1, "channel must be a whole number from 1 to 16, or an array of such, not 17"),
    ("quiet = 1", 1, "quiet must be true or false, not 1"),
    ("slow = 'fast'", 1, "slow must be thin or disconnect, not 'fast'"),
    ("allow = [['::1']]", 1, "allow must be a string, or an array of such, not an array"),
    ("address = 8080", 1, "address must be a string, not a number"),
    ("address = 2024-01-01", 1, "address must be a string, not a table or a date"),
    ("# of options\nloud = true", 2, "'loud' is no option of serve"),
    ("max-client = 3", 1, "did you mean max-clients?"),
    ("config = 'other.toml'", 1, "'config' is no option of serve"),
    ("[server]\nmax-clients = 3", 1, "'server' is no option of serve"),
    ("quiet = true\nserver.name = 'x'", 2, "'server' is no option of serve"),
    ("max-clients = 3\n'max_clients' = 4", 2, "max-clients is given twice"),
    ("allow = '''\nmax-clients = 0\n'''\n\"max-clients\" = 0", 4, "max-clients must be"),
    # What is no TOML.
    ("quiet = true\nslow = thin", 2, "Invalid value"),
    ("quiet = true\nquiet = false", 2, "Cannot overwrite"),
    ("allow = [\n'::1'", 2, "Unclosed array"),
    # What turns out wrong later.
    ("\naddress = 'nowhere'", 2, "'nowhere' is no address"),
    ("\naddress = 'midi://stage'", 2, "--announce stage gives it a name"),
    ("\naddress = '203.0.113.1:80'", 2, "this machine does not have that address"),
    ("\nannounce = ''", 2, "a name"),
    ("\nsysex = 'xyz'", 2, "'xyz' is no manufacturer ID"),
    ("\nallow = ['::1', '10.0.0.0/33']", 2, "is neither an address nor a network"),
    ("\ncert = 'none.pem'", 2, "none.pem: No such file"),
    ("key = 'none.key'\ncert = 'none.pem'", 2, "none.pem: No such file"),
    ("\nclient-ca = 'ca.pem'", 2, "--client-ca is of no use without --cert"),
    ("\ntoken-file = 'none'", 2, "none: No such file"),
    ("\ntoken = 'a b'", 2, "a token has characters that cannot be sent"),
    ("\ninsecure-token = true", 2, "--insecure-token is given, and no token"),
    ("address = ':0'\ntoken = 'abc'", 2, "unencrypted"),
    ("\ntype = 'noteon'", 2, "did you mean note_on?"),
    ("type = 'clock'\nchannel = 3", None, "leave no message to show"),
]


@pytest.fixture
def verb(capfd, monkeypatch):
    """Run a verb in this process, since a process takes its time to start: (exit status, out, err)."""
    monkeypatch.delenv("MIDINET_TOKEN", raising=False)

    def verb(*arguments):
        status = run_app(list(arguments))
        return status, *capfd.readouterr()

    return verb


@pytest.mark.parametrize(("text", "line", "what"), WRONG)
def test_what_is_wrong_is_one_line_that_says_where(text, line, what, verb, tmp_path):
    file = tmp_path / "hub.toml"
    file.write_text(text)
    status, out, err = verb("serve", "--config", str(file))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert re.match(rf"midinet: {file}, line {line or '[12]'}: ", err)
    assert what in err


@pytest.mark.parametrize("content", [b"quiet = true\n\xff", b"quiet = true\nslow = '\xff'"])
def test_what_is_no_text_is_one_line_too(content, run, tmp_path):
    (tmp_path / "hub.toml").write_bytes(content)
    status, _, err = run("serve", "--config", "hub.toml", cwd=tmp_path)
    assert (status, err) == (2, "midinet: hub.toml, line 2: this is no text in UTF-8\n")


def test_a_file_that_is_not_there_is_one_line(run):
    status, out, err = run("serve", "--config", "none.toml")
    assert (status, out, err) == (2, "", "midinet: cannot read none.toml: No such file or directory\n")


def test_a_token_is_not_repeated(run, tmp_path):
    (tmp_path / "hub.toml").write_text("token = 5551234\n")
    _, _, err = run("serve", "--config", "hub.toml", cwd=tmp_path)
    assert "555" not in err


def test_the_command_line_goes_before_the_file_and_is_not_blamed_on_it(run, start, tmp_path):
    (tmp_path / "hub.toml").write_text("address = 'nowhere'\nsysex = 'zz'\njson = true\n")
    hub = start("serve", "127.0.0.1:0", "--config", "hub.toml", "--sysex", "none", cwd=tmp_path)
    hub.wait_for('"event": "listening"')
    hub.interrupt()
    assert (hub.wait(), hub.err) == (130, "")
    _, _, err = run("serve", "elsewhere", "--config", "hub.toml", cwd=tmp_path)
    assert err.startswith("midinet: 'elsewhere' is no address")


def test_files_are_looked_for_beside_the_file(start, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tokens").write_text("secret\n")
    (tmp_path / "there" / "hub.toml").write_text("address = '127.0.0.1:0'\ntoken_file = 'tokens'\n")
    hub = start("serve", "--config", "there/hub.toml", cwd=tmp_path)
    hub.wait_for("listens on")
    hub.interrupt()
    assert (hub.wait(), hub.err) == (130, "")


def test_every_option_can_stand_in_a_file(verb, tmp_path, monkeypatch):
    """One of any other type than it has is refused, so each is known, and checked."""
    monkeypatch.chdir(tmp_path)
    _, text, _ = verb("serve", "--help")
    names = set(re.findall(r"--([a-z-]+)", text[text.index("Options:") : text.index("Exit status:")]))
    assert {"quiet", "allow", "json", "type"} < names
    for name in {"address", *names} - {"config", "help"}:
        (tmp_path / "hub.toml").write_text(f"{name} = {{}}\n")
        _, _, err = verb("serve", "--config", "hub.toml")
        assert err.startswith(f"midinet: hub.toml, line 1: {name} must be ")
