"""The listening test: what is written, what is read back, and the page in a real browser."""

import json
import os
import shutil
import time
import wave

import numpy as np
import pytest

import pianolstm as pl
from pianolstm import audio

needs_piano = pytest.mark.skipif(not audio._has_synthesiser(), reason="needs the extra audio")

CHORALES = pl.datasets.load_chorales("validation")
SAMPLES = {"real": [CHORALES[0][:16], CHORALES[1][:16]], "lstm": CHORALES[2][:16]}


@pytest.fixture
def no_sound(monkeypatch):
    """Sound of chance in place of a piano: another loudness for each excerpt."""
    rng = np.random.default_rng(0)

    def noise(midi, **keywords):
        return (rng.uniform(0.1, 0.9) * rng.uniform(-1, 1, (800, 2))).astype(np.float32)

    monkeypatch.setattr(audio, "render", noise)


@pytest.fixture
def folder(tmp_path, no_sound):
    pl.listening_test(SAMPLES, tmp_path / "test", random_state=1)
    return tmp_path / "test"


def key_of(folder):
    return json.loads((folder / "key.json").read_text())


def answer(folder, listener, ranks, human, *, file=None, **changes):
    """Write what the page saves; ranks and answers are in the order of the results' excerpts."""
    key = key_of(folder)
    ids = sorted(key["samples"], key=lambda i: (key["samples"][i], i))
    result = {
        **{name: key[name] for name in ("format", "version", "test")},
        "listener": listener,
        "name": "",
        "saved": "2024-05-01T10:00:00.000Z",
        "ranks": dict(zip(ids, ranks, strict=True)),
        "human": dict(zip(ids, human, strict=True)),
        **changes,
    }
    path = folder / (file or f"result-{listener}.json")
    path.write_text(json.dumps(result))
    return path


# ---------------------------------------------------------------------------- what is written


def test_the_page_names_no_excerpt_and_the_key_all(folder):
    assert sorted(os.listdir(folder)) == ["key.json", "page"]
    key = key_of(folder)["samples"]
    assert sorted(key.values()) == ["lstm", "real", "real"]
    files = sorted(path.name for path in (folder / "page").iterdir())
    assert files == sorted(["index.html", *(f"{i}.wav" for i in key)])
    page = (folder / "page" / "index.html").read_text()
    assert "lstm" not in page.replace("pianolstm", "") and '"real"' not in page
    assert "{{" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    # Nor do the excerpts stand in the order in which they were given.
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert [sample["id"] for sample in data["samples"]] == sorted(key)
    assert list(key) != sorted(key)


def test_the_page_holds_the_notes(folder):
    page = (folder / "page" / "index.html").read_text()
    data = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    key = key_of(folder)
    assert data["test"] == key["test"]
    (lstm,) = [s for s in data["samples"] if key["samples"][s["id"]] == "lstm"]
    roll = SAMPLES["lstm"]
    seconds = roll.frames_to_seconds(roll.notes["start"])
    assert np.allclose([note[0] for note in lstm["notes"]], seconds, atol=1e-3)
    assert [note[2] for note in lstm["notes"]] == roll.notes["pitch"].tolist()
    assert lstm["seconds"] == pytest.approx(roll.seconds)


def test_excerpts_are_equally_loud_and_none_clips(folder):
    levels, peaks = [], []
    for path in (folder / "page").glob("*.wav"):
        with wave.open(str(path)) as file:
            assert file.getparams()[:3] == (2, 2, 44_100)
            samples = np.frombuffer(file.readframes(800), "<i2").astype(float)
        levels.append(np.sqrt((samples**2).mean()))
        peaks.append(np.abs(samples).max())
    assert len(levels) == 3 and max(levels) < 1.001 * min(levels)
    assert max(peaks) == pytest.approx(audio.PEAK * 32767, abs=1)


def test_a_random_state_gives_the_same_test_again(tmp_path, no_sound):
    keys = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        page = pl.listening_test(SAMPLES, tmp_path / name, random_state=seed)
        assert page == tmp_path / name / "page" / "index.html" and page.is_file()
        keys.append(key_of(tmp_path / name))
    assert keys[0] == keys[1]
    assert keys[0]["test"] != keys[2]["test"]
    assert not set(keys[0]["samples"]) & set(keys[2]["samples"])
    # Other names for the same music are another test.
    pl.listening_test({**SAMPLES, "gru": CHORALES[3][:16]}, tmp_path / "d", random_state=1)
    assert key_of(tmp_path / "d")["test"] != keys[0]["test"]


def test_a_title_is_text_and_one_velocity_is_kept(tmp_path, monkeypatch):
    played = []

    def render(midi, **keywords):
        played.append(midi)
        return np.ones((8, 2), np.float32)

    monkeypatch.setattr(audio, "render", render)
    page = pl.listening_test(SAMPLES, tmp_path / "a", title="<b>Bach</b> & co", velocity=77)
    assert "<h1>&lt;b&gt;Bach&lt;/b&gt; &amp; co</h1>" in page.read_text()
    velocities = {note.velocity for midi in played for note in midi.instruments[0].notes}
    assert velocities == {77}


def test_a_call_that_fails_leaves_nothing(tmp_path, no_sound, monkeypatch):
    (tmp_path / "empty").mkdir()

    def full(*arguments):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(audio, "write_sound", full)
        with pytest.raises(OSError, match="No space left"):
            pl.listening_test(SAMPLES, tmp_path / "empty")
    assert os.listdir(tmp_path) == ["empty"] and not os.listdir(tmp_path / "empty")
    pl.listening_test(SAMPLES, tmp_path / "empty")
    assert sorted(os.listdir(tmp_path / "empty")) == ["key.json", "page"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([CHORALES[0]], "samples must be a dict of names to rolls.*got list"),
        ({1: CHORALES[0]}, "names of samples must be strings; got 1"),
        ({"a": CHORALES[0]}, "from 2 to 26 excerpts; got 1"),
        ({"a": [CHORALES[0]] * 27}, "from 2 to 26 excerpts; got 27"),
        ({"a": [CHORALES[0], CHORALES[0][:0]]}, r"samples\['a'\]\[1\] has no notes"),
        ({"a": "chorale.mid"}, r"samples\['a'\] must be a list"),
    ],
)
def test_bad_samples_are_told(tmp_path, no_sound, samples, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        pl.listening_test(samples, tmp_path / "test")
    assert not os.listdir(tmp_path)


def test_a_bad_folder_is_told(folder):
    with pytest.raises(pl.InvalidInputError, match="is there and not empty"):
        pl.listening_test(SAMPLES, folder)
    with pytest.raises(pl.InvalidInputError, match="is there and not empty"):
        pl.listening_test(SAMPLES, folder / "key.json")
    with pytest.raises(pl.InvalidInputError, match=r"there is no folder .*nowhere; make it first"):
        pl.listening_test(SAMPLES, folder / "nowhere" / "test")


# ---------------------------------------------------------------------------- what is read back


def test_results_by_hand(folder):
    answer(folder, "aa", [3, 1, 2], [False, True, True], name="Ann")
    answer(folder, "bb", [2, 1, 3], [True, True, False])
    results = pl.read_listening_test(folder)
    assert results.names == ("lstm", "real", "real")
    assert results.listeners == ("Ann", "bb")
    assert results.ranks.tolist() == [[3, 1, 2], [2, 1, 3]]
    assert results.judged_human.tolist() == [[False, True, True], [True, True, False]]
    assert list(results.mean_rank.items()) == [("real", (1 + 2 + 1 + 3) / 4), ("lstm", 2.5)]
    assert results.share_human == {"real": 3 / 4, "lstm": 1 / 2}
    # Rank sums 5, 2, 5 about their mean 4: S = 6; W = 12 * 6 / (4 * 24).
    assert results.kendalls_w == pytest.approx(0.75)
    assert str(results).splitlines() == [
        "name  excerpts  mean rank  judged human",
        "real         2       1.75  3 of 4 (75%)",
        "lstm         1       2.50  1 of 2 (50%)",
        "2 listeners, Kendall's W 0.75",
    ]


def test_agreement_is_that_of_friedman(folder):
    from scipy.stats import friedmanchisquare

    rng = np.random.default_rng(5)
    ranks = np.array([rng.permutation(6) + 1 for _ in range(7)])
    results = pl.ListeningResults(tuple("abcdef"), tuple("1234567"), ranks, ranks < 3)
    # The statistic of Friedman's test is m (n - 1) W.
    assert results.kendalls_w == pytest.approx(friedmanchisquare(*ranks.T).statistic / (7 * 5))
    alike = pl.ListeningResults(tuple("abc"), ("1", "2"), np.array([[2, 3, 1]] * 2), ranks[:2] > 3)
    assert alike.kendalls_w == pytest.approx(1)


def test_one_listener_has_nobody_to_agree_with(folder):
    answer(folder, "aa", [3, 1, 2], [False, True, True])
    results = pl.read_listening_test(folder)
    assert np.isnan(results.kendalls_w)
    assert results.mean_rank == {"real": 1.5, "lstm": 3}
    assert str(results).endswith("\n1 listener")


def test_of_a_listener_the_later_answers_count(folder):
    first = answer(folder, "aa", [3, 1, 2], [True] * 3, saved="2024-05-01T10:00:00.000Z")
    later = {"saved": "2024-05-01T10:00:01.000Z", "file": "result-aa (1).json"}
    second = answer(folder, "aa", [1, 3, 2], [True] * 3, **later)
    for results in (None, [first, second], [second, str(first)]):
        assert pl.read_listening_test(folder, results).ranks.tolist() == [[1, 3, 2]]
    assert pl.read_listening_test(folder, [first]).ranks.tolist() == [[3, 1, 2]]


def test_answers_to_another_test_are_refused(folder, tmp_path):
    pl.listening_test(SAMPLES, tmp_path / "other", random_state=4)
    path = answer(tmp_path / "other", "aa", [3, 1, 2], [True] * 3)
    with pytest.raises(
        pl.InvalidInputError, match=r"result-aa.json answers another listening test"
    ):
        pl.read_listening_test(folder, [path])


@pytest.mark.parametrize(
    "changes",
    [
        {"ranks": {}},
        {"ranks": [1, 2, 3]},
        {"human": {}},
        {"human": None},
        {"listener": 3},
        {"saved": None},
    ],
)
def test_incomplete_answers_are_refused(folder, changes):
    path = answer(folder, "aa", [3, 1, 2], [True] * 3)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(pl.InvalidInputError, match="expected a rank from 1 to 3 and an answer"):
        pl.read_listening_test(folder)


@pytest.mark.parametrize("ranks", [[1, 1, 2], [0, 1, 2], [1, 2, 4], [1, 2, "3"], [True, 2, 3]])
def test_ranks_are_one_to_n(folder, ranks):
    answer(folder, "aa", ranks, [True] * 3)
    with pytest.raises(pl.InvalidInputError, match="expected a rank from 1 to 3"):
        pl.read_listening_test(folder)


def test_what_is_no_test_is_told(folder, tmp_path):
    with pytest.raises(
        pl.InvalidInputError, match=r"There are no answers in .*put the files there"
    ):
        pl.read_listening_test(folder)
    with pytest.raises(
        pl.InvalidInputError, match=r"key.json can't be read: No such file.*the key"
    ):
        pl.read_listening_test(tmp_path)
    with pytest.raises(pl.InvalidInputError, match="results must be a list of paths"):
        pl.read_listening_test(folder, "result.json")
    (folder / "other.json").write_text('{"format": "something else"}')
    with pytest.raises(pl.InvalidInputError, match=r"other.json: expected answers that a listener"):
        pl.read_listening_test(folder)
    with pytest.raises(pl.InvalidInputError, match=r"key.json: expected answers that a listener"):
        pl.read_listening_test(folder, [folder / "key.json"])
    (folder / "other.json").write_text("no JSON")
    with pytest.raises(pl.InvalidInputError, match=r"other.json: expected answers"):
        pl.read_listening_test(folder)
    answer(folder, "aa", [1, 2, 3], [True] * 3, file="other.json", version=2)
    with pytest.raises(pl.InvalidInputError, match=r"other.json is of version 2; this library"):
        pl.read_listening_test(folder)


# --------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """Where the browser saves files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads, tmp_path_factory):
    """A headless Chromium of the size of a phone."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    binary = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    service = shutil.which("chromedriver")
    if binary is None or service is None:
        pytest.skip("needs Chromium and its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # The sandbox does not run as root, as in a container.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    for argument in [
        *("headless", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"),
        *(["no-sandbox"] if is_root else []),
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ]:
        options.add_argument(f"--{argument}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(service))
    driver.set_window_size(390, 844)
    driver.implicitly_wait(5)
    yield driver
    driver.quit()


def click(browser, css):
    """Click what is there, where the footer does not cover it."""
    element = browser.find_element("css selector", css)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def wait_for(condition):
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)
    return found


def order_of(browser):
    found = browser.find_elements("css selector", "#excerpts audio")
    return [element.get_attribute("id").removeprefix("audio-") for element in found]


def be_listener(browser, page, listener):
    """Open the page as a listener of a known number, on whom the order depends."""
    browser.get(page.as_uri())
    state = json.dumps({"listener": listener, "name": "", "human": {}, "order": []})
    browser.execute_script("localStorage.setItem(storageKey, arguments[0])", state)
    browser.refresh()


@needs_piano
def test_what_listeners_click_is_what_is_read(tmp_path, browser, downloads):
    samples = {"real": [r[:16] for r in CHORALES[:2]], "lstm": [r[:16] for r in CHORALES[2:4]]}
    page = pl.listening_test(samples, tmp_path / "test", title="By ear", random_state=0)
    key = key_of(tmp_path / "test")["samples"]
    be_listener(browser, page, "00c0ffee00000000")
    first, second, third, fourth = order_of(browser)
    assert {first, second, third, fourth} == set(key)
    # Nothing is wider than a phone, nor does a name stand anywhere.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert "lstm" not in browser.find_element("tag name", "body").text

    # It is not saved before all is answered.
    click(browser, "#save")
    assert "Please give 4 answers and 4 ranks" in browser.find_element("id", "status").text
    is_human = {first: False, second: True, third: True, fourth: False}
    for sample, human in is_human.items():
        value = "human" if human else "machine"
        click(browser, f"input[name='human-{sample}'][value={value}]")
    for sample in (second, fourth, first, third):
        click(browser, f"#pool [data-id='{sample}']")
    # A sound that plays, and stops when another does.
    paused = "return [...document.querySelectorAll('audio')].map((a) => a.paused)"
    for i, sample in enumerate((first, second)):
        click(browser, f"#ranking [data-id='{sample}'] button")
        wait_for(lambda i=i: browser.execute_script(paused) == [j != i for j in range(4)])
    moved = (
        f"return document.querySelector('section:has(#audio-{second}) .cursor').x1.baseVal.value"
    )
    wait_for(lambda: browser.execute_script(moved) > 0.1)  # a tenth of a second
    click(browser, f"#ranking [data-id='{third}'] button:nth-of-type(2)")  # up, to the third place
    click(browser, f"#ranking [data-id='{second}'] button:nth-of-type(3)")  # down, to the second
    click(browser, f"#ranking [data-id='{first}'] button:nth-of-type(4)")  # out, and in again
    browser.find_element("id", "name").send_keys("Ann")
    assert browser.find_element("id", "status").text == "Still to give: 1 rank."

    # The browser keeps what was answered, and the order.
    browser.refresh()
    assert order_of(browser) == [first, second, third, fourth]
    click(browser, f"#pool [data-id='{first}']")
    click(browser, "#save")
    saved = downloads / "result-00c0ffee00000000.json"
    wait_for(saved.is_file)
    wait_for(lambda: "Thank you" in browser.find_element("id", "status").text)
    shutil.copy(saved, tmp_path / "test")
    results = pl.read_listening_test(tmp_path / "test")
    assert results.listeners == ("Ann",)
    ids = sorted(key, key=lambda i: (key[i], i))
    assert results.names == tuple(key[i] for i in ids)
    ranks = {fourth: 1, second: 2, third: 3, first: 4}
    assert results.ranks.tolist() == [[ranks[i] for i in ids]]
    assert results.judged_human.tolist() == [[is_human[i] for i in ids]]

    # Another listener: another order, and nothing answered.
    be_listener(browser, page, "0badcafe00000000")
    assert order_of(browser) != [first, second, third, fourth]
    assert set(order_of(browser)) == set(key)
    assert browser.find_element("id", "status").text == "Still to give: 4 answers and 4 ranks."

    # Or the same listener from the start.
    click(browser, f"#pool [data-id='{first}']")
    click(browser, "#again")
    browser.switch_to.alert.accept()
    wait_for(lambda: len(browser.find_elements("css selector", "#pool button")) == 4)
    complaints = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert complaints == []


@needs_piano
def test_the_keyboard_alone_will_do(tmp_path, browser, downloads):
    from selenium.webdriver.common.keys import Keys

    page = pl.listening_test(SAMPLES, tmp_path / "test", random_state=0)
    be_listener(browser, page, "0123456700000000")
    first, second, third = order_of(browser)

    def focus():
        return browser.switch_to.active_element

    def press(*keys):
        for key in keys:
            focus().send_keys(key)

    def tab_to(css):
        wanted = browser.find_element("css selector", css)
        for _ in range(80):
            if focus() == wanted:
                return
            press(Keys.TAB)
        raise AssertionError(f"the tabulator never comes to {css}")

    for sample in (first, second, third):
        tab_to(f"input[name='human-{sample}']")
        press(Keys.SPACE, Keys.ARROW_RIGHT)  # a human; no, a machine
    tab_to("#pool button")
    press(Keys.ENTER, Keys.ENTER, Keys.ENTER)  # the focus goes on to the next
    tab_to(f"#ranking [data-id='{third}'] button:nth-of-type(2)")
    press(Keys.ENTER, Keys.ENTER)  # up and up, with the focus on it
    assert focus().get_attribute("aria-label") == "Play or pause Excerpt C"
    tab_to("#save")
    press(Keys.ENTER)
    saved = downloads / "result-0123456700000000.json"
    result = json.loads(wait_for(lambda: saved.is_file() and saved.read_text()))
    assert result["ranks"] == {third: 1, first: 2, second: 3}
    assert result["human"] == dict.fromkeys((first, second, third), False)
