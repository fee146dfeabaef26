import subprocess
import sys
import types
import warnings

import pytest

import facelm
from facelm import cli
from facelm.cli import main


@pytest.fixture
def command(monkeypatch):
    """A command `try` whose behaviour the test sets."""
    module = types.ModuleType("facelm.commands.try")
    module.add_arguments = lambda parser: parser.add_argument("--count", type=int, default=0)
    module.run = lambda args: args.count
    monkeypatch.setitem(sys.modules, "facelm.commands.try", module)
    monkeypatch.setattr(cli, "COMMANDS", {"try": "a command for tests", **cli.COMMANDS})
    return module


def usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == cli.USAGE
    return capsys.readouterr().err


class TestDispatch:
    def test_exit_code_is_the_command_s(self, command):
        assert main(["try"]) == 0
        assert main(["try", "--count", "3"]) == 3

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "required: COMMAND"),
            (["fly"], "invalid choice: 'fly'"),
            (["try", "--count", "many"], "invalid int value: 'many'"),
            (["try", "--speed"], "unrecognized arguments: --speed"),
            (["--speed", "try"], "--speed"),
        ],
    )
    def test_wrong_usage(self, command, arguments, message, capsys):
        assert message in usage_error(arguments, capsys)

    @pytest.mark.parametrize("error", [ValueError, FileNotFoundError, PermissionError, ConnectionError, ImportError])
    def test_a_mistake_is_one_line(self, command, error, capsys):
        def fail(args):
            raise error("what happened, and what to do")

        command.run = fail
        assert main(["try"]) == cli.FAILED
        assert capsys.readouterr().err == "error: what happened, and what to do\n"

    def test_traceback_on_demand(self, command, monkeypatch):
        def fail(args):
            raise ValueError("deep inside")

        command.run = fail
        monkeypatch.setenv("FACELM_TRACEBACK", "1")
        with pytest.raises(ValueError, match="deep inside"):
            main(["try"])

    def test_a_bug_is_no_mistake_of_the_user(self, command):
        def fail(args):
            raise KeyError("a bug")

        command.run = fail
        with pytest.raises(KeyError):
            main(["try"])

    def test_a_warning_is_said_without_the_line_of_code(self, command, capsys):
        command.run = lambda args: warnings.warn("something is missing", stacklevel=1) or 0
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main(["try"]) == 0
        assert capsys.readouterr().err == "warning: something is missing\n"

    def test_interrupted(self, command, capsys):
        def interrupt(args):
            raise KeyboardInterrupt

        command.run = interrupt
        assert main(["try"]) == cli.INTERRUPTED
        assert capsys.readouterr().err == "interrupted\n"

    @pytest.mark.parametrize("lines", [1, 20_000])  # written at the end, and in between
    def test_a_reader_that_leaves_is_no_error(self, lines):
        code = (
            "import sys, types; from facelm import cli\n"
            "module = types.ModuleType('facelm.commands.landmarks'); module.add_arguments = lambda parser: None\n"
            f"def run(args): [print('a line of some length') for _ in range({lines})]; return 0\n"
            "module.run = run; sys.modules[module.__name__] = module\n"
            "sys.exit(cli.main(['landmarks']))"
        )
        command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        command.stdout.close()
        said = command.stderr.read()
        assert (command.wait(), said) == (cli.UNREAD, b"")

    def test_another_broken_pipe_is_one(self, command, capsys):
        def fail(args):
            raise BrokenPipeError("of a worker")

        command.run = fail
        assert main(["try"]) == cli.FAILED
        assert capsys.readouterr().err == "error: of a worker\n"


class TestHelp:
    @pytest.mark.parametrize("name", cli.COMMANDS)
    def test_every_command_explains_itself(self, name, capsys):
        with pytest.raises(SystemExit) as exit_:
            main([name, "--help"])
        assert exit_.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: facelm {name}")
        assert cli.COMMANDS[name][1:] in " ".join(text.split())

    def test_all_are_listed(self, capsys):
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        assert all(name in text for name in cli.COMMANDS)

    def test_version(self, capsys):
        with pytest.raises(SystemExit):
            main(["--version"])
        assert capsys.readouterr().out == f"facelm {facelm.__version__}\n"

    def test_importing_the_package_imports_nothing(self):
        code = (
            "import sys; before = set(sys.modules); import facelm\n"
            "new = {name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names\n"
            "print(sorted(new))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "['facelm']\n"

    def test_help_imports_nothing_heavy(self):
        code = (
            "import sys; from facelm.cli import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit: pass\n"
            "print(sorted({'torch', 'cv2', 'numpy', 'lightning', 'hydra', 'rich', 'dlib'} & set(sys.modules)))"
        )
        for arguments in (["--help"], ["predict", "--help"]):
            done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
            assert done.stdout.splitlines()[-1] == "[]"
