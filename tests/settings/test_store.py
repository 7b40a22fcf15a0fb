"""Which models a server starts with."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from tests.support.settings_world import World

from bloomery.errors import ConfigurationError
from bloomery.settings import ModelSettings, load
from bloomery.settings.store import Entry, parse_load_models


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("/models/m", Entry("/models/m")),
        ("m", Entry("m")),
        ("test::MPI=/opt/ml/model", Entry("/opt/ml/model", "test", "", "MPI")),
        ("[test:1.0:MPI:gpu0;gpu1]=file:///m", Entry("file:///m", "test", "1.0", "MPI", "gpu0;gpu1")),
        ("[a]=s3://bucket/x/", Entry("s3://bucket/x/", "a")),
        ("[]=m", Entry("m")),
        ("s3://bucket/x?versionId=1", Entry("s3://bucket/x?versionId=1")),
    ],
)
def test_an_entry_of_load_models(text: str, entry: Entry) -> None:
    assert parse_load_models(text) == [entry]


def test_entries_are_separated_by_commas() -> None:
    assert parse_load_models("[a]=/x, /y ,") == [Entry("/x", "a"), Entry("/y")]


@pytest.mark.parametrize("text", [",", "[a:b:c:d:e]=/x", "[a b]=/x", "[a]="])
def test_an_entry_that_is_none_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(ValueError, match=r"\[name:version:engine:devices\]=url"):
        parse_load_models(text)


class TestServing:
    @pytest.fixture
    def store(self, world: World) -> Path:
        for name in ("a", "b"):
            world.write(f"store/{name}/model.py", "")
        return world.path / "store"

    def names(self, world: World, *options: str, **environment: str) -> list[str]:
        return [model.name for model in world.settings(None, *options, **environment).models]

    def test_all_of_the_model_store(self, world: World, store: Path) -> None:
        assert self.names(world, SERVING_MODEL_STORE=str(store)) == ["a", "b"]
        assert self.names(world, SERVING_MODEL_STORE=str(store), SERVING_LOAD_MODELS="ALL") == ["a", "b"]

    def test_a_store_with_a_model_at_its_root_is_that_model(self, world: World, store: Path) -> None:
        (store / "serving.properties").touch()
        (store / "model.py").touch()
        assert self.names(world, SERVING_MODEL_STORE=str(store)) == ["store"]

    def test_none(self, world: World, store: Path) -> None:
        assert self.names(world, SERVING_MODEL_STORE=str(store), SERVING_LOAD_MODELS="NONE") == []

    def test_some_by_their_names_in_the_store(self, world: World, store: Path) -> None:
        assert self.names(world, f"model_store={store}", "load_models=b") == ["b"]

    def test_sagemakers_multi_model_mode_starts_with_none(self, world: World, store: Path) -> None:
        assert self.names(world, SERVING_MODEL_STORE=str(store), SAGEMAKER_MULTI_MODEL="true") == []

    def test_the_argument_comes_before_the_store(self, world: World, store: Path) -> None:
        assert world.model("mine", SERVING_MODEL_STORE=str(store)).name == "mine"

    def test_an_empty_store_gives_way_to_a_checkpoint_that_is_named(self, world: World) -> None:
        (world.path / "empty").mkdir()
        for store in ("empty", "missing"):
            model = world.model(None, SERVING_MODEL_STORE=str(world.path / store), HF_MODEL_ID="facebook/opt-125m")
            assert (model.name, model.model_dir) == ("opt-125m", world.home.model_dir)

    @pytest.mark.parametrize("directory", ["empty", "missing"])
    def test_so_does_an_entry_as_lmis_images_write_it(self, world: World, directory: str) -> None:
        (world.path / "empty").mkdir()
        model = self.entry(world, f"test::MPI={world.path / directory}", HF_MODEL_ID="facebook/opt-125m")
        assert (model.name, model.engine, model.model_dir) == ("test", "MPI", world.home.model_dir)
        assert model.properties["model_id"] == "facebook/opt-125m"

    def test_a_store_that_is_not_there_is_refused(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match=r"SERVING_MODEL_STORE: model_store=/no/store: there is no such"):
            world.settings(None, SERVING_MODEL_STORE="/no/store")

    def test_all_without_a_store_is_refused(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="needs model_store"):
            world.settings(None, SERVING_LOAD_MODELS="ALL")

    def entry(self, world: World, text: str, **environment: str) -> ModelSettings:
        return world.model(None, SERVING_LOAD_MODELS=text, **environment)

    def test_an_entry_gives_name_version_engine_and_devices(self, world: World, store: Path) -> None:
        model = self.entry(world, f"[test:1.1:MPI:gpu1]={store / 'a'}", CUDA_VISIBLE_DEVICES="0,1")
        assert (model.name, model.version, model.engine, model.placements) == ("test", "1.1", "MPI", (("1",),))
        assert model.model_dir == store / "a"

    def test_file_urls_are_paths(self, world: World, store: Path) -> None:
        assert self.entry(world, f"file://{store}/a").model_dir == store / "a"

    def test_a_checkpoints_uri_is_served_by_the_products_own_handler(self, world: World) -> None:
        model = self.entry(world, "[big]=s3://bucket/opt/")
        assert (model.name, model.properties["model_id"]) == ("big", "s3://bucket/opt/")

    def test_nothing_is_downloaded_over_http(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match=r"not downloaded over https; put the archive"):
            self.entry(world, "https://host/model.tar.gz")

    def test_one_name_for_several_models_is_refused(self, world: World, store: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"holds several models \(a, b\)"):
            self.entry(world, f"[x]={store}")

    def test_two_models_of_one_name_are_refused_and_two_versions_are_not(self, world: World, store: Path) -> None:
        with pytest.raises(ConfigurationError, match="two models are called 'x'"):
            world.settings(None, SERVING_LOAD_MODELS=f"[x]={store}/a,[x]={store}/b")
        versions = world.settings(None, SERVING_LOAD_MODELS=f"[x:1]={store}/a,[x:2]={store}/b").models
        assert [model.version for model in versions] == ["1", "2"]

    def test_without_waiting_no_model_is_required(self, world: World) -> None:
        assert world.model("mine").required
        assert not world.model("mine", SERVING_WAIT_MODEL_LOADING="false").required

    def test_the_command_lines_models_come_before_the_environments(self, world: World, store: Path) -> None:
        environ = {"SERVING_LOAD_MODELS": "NONE"}
        settings = load(models=["[x]=a", "b"], model_store=str(store), environ=environ, home=world.home)
        assert [model.name for model in settings.models] == ["x", "b"]

    def test_an_argument_and_models_contradict_each_other(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="keep one of them"):
            load(str(world.path / "mine"), models=["x"], environ={}, home=world.home)

    def test_archives_in_the_store_are_models(self, world: World, store: Path) -> None:
        with tarfile.open(store / "packed.tar.gz", "w:gz") as archive:
            archive.add(store / "a", "a")
        settings = world.settings(None, SERVING_MODEL_STORE=str(store))
        packed = settings.models[-1]
        assert (packed.name, packed.model_dir.name, packed.entry_point) == ("packed", "a", "model.py")
        settings.unpacked.remove()
        assert not packed.model_dir.exists()

    def test_an_archive_with_several_models_is_refused(self, world: World, store: Path) -> None:
        with tarfile.open(world.path / "both.tgz", "w:gz") as archive:
            archive.add(store, ".")
        with pytest.raises(ConfigurationError, match=r"both\.tgz holds 2 models \(a, b\)"):
            world.settings("both.tgz")


class TestConfigProperties:
    def test_it_yields_to_the_environment_and_to_the_models_file(self, world: World) -> None:
        file = world.write(
            "conf/config.properties", "job_queue_size=3\nmax_request_size=5\ninference_address=http://h:1\n"
        )

        def read(**environ: str) -> tuple[int, int, str]:
            settings = load(str(world.path / "mine"), config_file=str(file), environ=environ, home=world.home)
            return settings.models[0].job_queue_size, settings.server.max_request_size, settings.server.host

        assert read() == (3, 5, "h")
        assert read(SERVING_JOB_QUEUE_SIZE="4", SERVING_MAX_REQUEST_SIZE="6") == (4, 6, "h")
        world.write("mine/serving.properties", "job_queue_size=7\n")
        assert read(SERVING_JOB_QUEUE_SIZE="4") == (7, 5, "h")

    def test_it_comes_before_the_repositorys_own_file(self, world: World) -> None:
        world.write("clone/serving.properties", "engine=Python\noption.model_id=models/demo\njob_queue_size=2\n")
        file = world.write("c.properties", "job_queue_size=3\n")
        (model,) = load(config_file=str(file), environ={}, home=world.home).models
        assert model.job_queue_size == 3

    def test_it_is_found_below_model_server_home(self, world: World) -> None:
        world.write("home/conf/config.properties", "job_queue_size=3\n")
        home = str(world.path / "home")
        assert world.model("mine", MODEL_SERVER_HOME=home).job_queue_size == 3
        row = world.origin("job_queue_size", "mine", MODEL_SERVER_HOME=home)
        assert row == f"config.properties line 1 of {home}/conf"

    def test_a_file_that_is_named_must_be_there(self, world: World) -> None:
        with pytest.raises(ConfigurationError, match="--config-file /no/file: there is no such file"):
            load(str(world.path / "mine"), config_file="/no/file", environ={}, home=world.home)

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("number_of_netty_threads=4", "number_of_netty_threads has no effect in this server: there is no Netty"),
            ("plugin_folder=plugins", "no plugins"),
            ("error_rate_any=5/PT1M", "/metrics"),
            ("job_queue_sise=4", "job_queue_sise has no effect in this server; did you mean job_queue_size?"),
        ],
    )
    def test_a_key_that_does_nothing_is_warned_of(self, world: World, line: str, words: str) -> None:
        file = world.write("c.properties", line)
        (notice,) = load(str(world.path / "mine"), config_file=str(file), environ={}, home=world.home).notices
        assert notice.startswith(f"c.properties line 1 of {world.path}: ")
        assert words in notice

    def test_an_option_of_a_model_is_refused_with_its_right_place(self, world: World) -> None:
        file = world.write("c.properties", "option.dtype=fp16\n")
        with pytest.raises(ConfigurationError, match=r"option\.dtype is a setting of a model; .*OPTION_DTYPE"):
            load(str(world.path / "mine"), config_file=str(file), environ={}, home=world.home)
