import threading

from irnet_hpc.doctor.checks import Check, Level, examine, ok


def test_a_check_that_hangs_is_a_failure_with_the_command_to_type(settings):
    def hang(_):
        threading.Event().wait(30)

    verdict = examine(Check("hangs", hang, 0.2, "ls {results}"), settings)
    assert verdict.level == Level.FAILURE
    assert verdict.todo.endswith(f"ls {settings.results}")


def test_a_check_that_breaks_is_a_failure_that_names_the_line(settings):
    def crash(_):
        raise KeyError("x")

    verdict = examine(Check("breaks", crash, 600, "true"), settings)
    assert verdict.level == Level.FAILURE
    assert "KeyError: 'x'" in verdict.found and "test_checks.py:" in verdict.found


def test_a_time_out_of_the_file_system_is_not_one_of_the_check(settings):
    def fail(_):
        raise TimeoutError(110, "Connection timed out", "/results")

    verdict = examine(Check("fails", fail, 600, "true"), settings)
    assert verdict.found == "/results: Connection timed out"


def test_a_check_that_returns_is_left_as_it_is(settings):
    verdict = ok("fine", n=1)
    assert examine(Check("works", lambda _: verdict, 600, "true"), settings) is verdict
