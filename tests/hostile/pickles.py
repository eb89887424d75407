"""Pickles in torch files, written instruction by instruction."""

import io
import itertools
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from adrbench.checkpoints.torch_files import read_torch_file
from hostile.limited import Case

NAME = "file.pt"
MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def zipped(pickled: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """Return a torch file with a pickle and storages, by default one of twelve bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, content in ({"0": bytes(12)} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
    return buffer.getvalue()


def legacy(pickled: bytes, keys: bytes = b"\x80\x02].", storages: bytes = b"") -> bytes:
    """Return a torch file in the format before torch 1.6."""
    version, system = b"\x80\x02M\xe9\x03.", b"\x80\x02}."
    return MAGIC + version + system + pickled + keys + storages


FORMATS: dict[str, Callable[[bytes], bytes]] = {"zip": zipped, "legacy": legacy}


def text(value: str) -> bytes:
    """Push a text."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    """Push a number."""
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def name(full_name: str) -> bytes:
    """Push what a name stands for."""
    return b"c" + "\n".join(full_name.rsplit(".", 1)).encode() + b"\n"


def storage(num_elements: int = 3, key: str = "0", kind: str = "torch.FloatStorage") -> bytes:
    """Push a reference to a storage."""
    return (
        b"(" + text("storage") + name(kind) + text(key) + text("cpu") + number(num_elements) + b"tQ"
    )


def tensor(size: bytes = b"K\x03\x85", stride: bytes = b"K\x01\x85", *, more: bytes = b"") -> bytes:
    """Push a tensor, of the three numbers in the storage of twelve bytes."""
    rest = b"\x89" + name("collections.OrderedDict") + b")R" + more + b"t"
    return (
        name("torch._utils._rebuild_tensor_v2")
        + b"("
        + storage()
        + b"K\x00"
        + size
        + stride
        + rest
        + b"R"
    )


#: The stack before an instruction.
STACKS = {
    "nothing": b"",
    "a mark": b"(",
    "two marks": b"((",
    "a list": b"]",
    "a dictionary": b"}",
    "a set": b"\x8f",
    "numbers": b"K\x01K\x02K\x03",
    "a mark and numbers": b"(K\x01K\x02K\x03",
    "a list and a mark": b"](",
    "a dictionary, a mark, a list": b"}(]",
    "a dictionary, a list, a number": b"}]K\x01",
    "a set, a mark, a dictionary": b"\x8f(}",
    "texts": text("os") + text("system"),
    "a function": name("os.system"),
    "a function and no tuple": name("os.system") + b"]",
    "a function and arguments": name("os.system") + text("true") + b"\x85",
    "a dtype and arguments": name("torch.float32") + b")",
    "an ordered dictionary and arguments": name("collections.OrderedDict") + b"]\x85",
    "a storage": storage(),
    "a tensor": tensor(),
    "a tensor and a state": tensor() + b"}",
    "three functions": 3 * name("os.system"),
}
#: Bytes that follow an instruction as its argument.
ARGUMENTS = {
    "none": b"",
    "zeros": bytes(8),
    "ones": b"\xff" * 8,
    "lines": b"a\nb\nc\n",
    "a small length": b"\x02\x00\x00\x00\x00\x00\x00\x00ab",
    "a large length": b"\xff\xff\xff\x7f\x00\x00\x00\x00",
}


def instructions() -> Iterator[tuple[str, bytes]]:
    """Yield pickles with every instruction after every stack, with every argument it may take."""
    for opcode, (stack, before) in itertools.product(pickletools.opcodes, STACKS.items()):
        arguments = ARGUMENTS.items() if opcode.arg else [("none", b"")]
        for argument, after in arguments:
            says = f"{opcode.name} on {stack}, argument {argument}"
            yield says, b"\x80\x04" + before + opcode.code.encode("latin1") + after + b"."


#: What the names that are known may be called with.
CALLS = {
    "no arguments": b")",
    "None": b"N\x85",
    "a huge number": number(2**60) + b"\x85",
    "a negative number": number(-1) + b"\x85",
    "a list with a huge number": b"](" + number(2**40) + b"e\x85",
    "a list of lists": b"](]]e\x85",
    "a list with a number": b"]K\x01a\x85",
    "a dictionary": b"}K\x01K\x02s\x85",
    "text and an encoding": text("abc") + text("latin1") + b"\x86",
    "text and another encoding": text("abc") + text("hex") + b"\x86",
    "wide text": text("\u20ac") + text("latin1") + b"\x86",
    "a function": name("os.system") + b"\x85",
    "itself": b"0",
    "a storage": storage() + b"\x85",
    "a tensor": tensor() + b"\x85",
    "a storage and numbers": b"(" + storage() + b"K\x00K\x03K\x01t",
    "a storage and tuples": b"(" + storage() + b"K\x00" + number(2**40) + b"\x85K\x01\x85t",
    "nine arguments": b"(" + b"K\x01" * 9 + b"t",
    "a subclass of itself": b"(" + name("torch._tensor._rebuild_from_type_v2") + b"N)}t",
    "numbers": b"K\x01K\x02K\x03\x87",
    "floats": b"G?\xf0\x00\x00\x00\x00\x00\x00G?\xf0\x00\x00\x00\x00\x00\x00\x86",
}
NAMES = (
    *("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"),
    *("torch._utils._rebuild_tensor_v3", "torch._utils._rebuild_parameter"),
    *("torch._utils._rebuild_parameter_with_state", "torch._tensor._rebuild_from_type_v2"),
    *("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_qtensor"),
    *("torch._utils._rebuild_meta_tensor_no_storage", "torch._utils._rebuild_nested_tensor"),
    *("torch._utils._rebuild_wrapper_subclass", "torch._utils._rebuild_device_tensor_from_numpy"),
    *("torch.nn.parameter.Parameter", "torch.Size", "torch.device", "torch.float32"),
    *("torch.FloatStorage", "torch.storage.UntypedStorage", "torch.FloatTensor", "torch.Tensor"),
    *("collections.OrderedDict", "collections.Counter", "_codecs.encode", "torch.load"),
    *("builtins.bytearray", "builtins.set", "builtins.complex", "builtins.list", "builtins.bytes"),
    *("torch.serialization._get_layout", "numpy.core.multiarray._reconstruct", "os.system"),
)


def calls() -> Iterator[tuple[str, bytes]]:
    """Yield pickles that call every name with all arguments, as a function and as a class."""
    for full_name, (says, arguments) in itertools.product(NAMES, CALLS.items()):
        for verb, opcode in (("called", b"R"), ("made", b"\x81"), ("built", b"R}b")):
            yield (
                f"{full_name} {verb} with {says}",
                b"\x80\x02" + name(full_name) + arguments + opcode + b".",
            )


def numbered(template: bytes, count: int) -> bytes:
    """Return `count` copies of a template with the numbers 0, 1, ... in place of `####`."""
    return b"".join(template.replace(b"####", struct.pack("<I", index)) for index in range(count))


def shared(first: bytes, wrap: bytes, levels: int) -> bytes:
    """Return containers, each of which refers to the one before it several times.

    `wrap` makes the next one, from the number of the last remembered object in place of `@`.
    """
    parts = [first + b"q\x00"]
    for level in range(levels):
        parts.append(wrap.replace(b"@", bytes([level])) + b"q" + bytes([level + 1]))
    return b"".join(parts)


NESTED = 500_000
HUGE_TEXT = text("x" * 1_000_000)
#: Programs that take long, or much memory, if they are followed naively.
PROGRAMS: dict[str, bytes] = {
    "lists of lists, each twice": shared(b"]", b"](h@h@e", 40),
    "lists of lists, ten times each": shared(b"]", b"](" + b"h@" * 10 + b"e", 30),
    "tables of tables, each twice": shared(b"}", b"}(K\x01h@K\x02h@u", 40),
    "tuples of tuples, each twice": shared(b")", b"h@h@\x86", 200),
    "tuples of tuples as a name": b"}" + shared(b")", b"h@h@\x86", 200) + b"K\x01s",
    "a list in itself": b"]q\x00h\x00a",
    "a table in itself": b"}q\x00K\x01h\x00s",
    "two lists in each other": b"]q\x00]q\x01h\x00ah\x01a0h\x00h\x01a",
    "a million shared texts": HUGE_TEXT + b"q\x000](" + b"h\x00" * 1_000_000 + b"e",
    "a thousand shared texts in a list": HUGE_TEXT + b"q\x000](" + b"h\x00" * 1_000 + b"e",
    "a long name": b"}" + HUGE_TEXT + b"K\x01s",
    "lists within lists": b"]" * NESTED + b"a" * (NESTED - 1),
    "tuples within tuples": b")" + b"\x85" * NESTED,
    "tables within tables": b"}K\x01" * NESTED + b"}" + b"s" * NESTED,
    "lists within lists, two hundred": b"]" * 200 + b"a" * 199,
    "items added to a set again and again": b"\x8f" + b"(K\x01\x90" * 400_000,
    "items appended again and again": b"]" + b"(K\x01e" * 400_000,
    "a million empty lists": b"](" + b"]" * 1_100_000 + b"e",
    "a million empty sets": b"](" + b"\x8f" * 1_100_000 + b"e",
    "four million instructions": b"N0" * 2_100_000 + b"N",
    "marks": b"(" * 3_000_000 + b"N",
    "names of long tuples": b"}("
    + b"("
    + b"K\x01" * 100_000
    + b"tq\x00K\x01"
    + b"h\x00K\x01" * 100_000
    + b"u",
    "tuples as names": b"}(" + numbered(b"J####J####\x86K\x01", 100_000) + b"u",
    "numbers as names": b"}(" + numbered(b"J####K\x01", 300_000) + b"u",
    "numbers of one hash as names": b"}("
    + b"".join(number(index * (2**61 - 1)) + b"N" for index in range(100_000))
    + b"u",
    "numbers of one hash in a set": b"\x8f("
    + b"".join(number(index * (2**61 - 1)) for index in range(100_000))
    + b"\x90",
    "complex numbers of one hash": b"}("
    + b"".join(
        name("builtins.complex")
        + b"G"
        + struct.pack(">d", 1000003 * k)
        + b"G"
        + struct.pack(">d", -k)
        + b"\x86RN"
        for k in range(1, 30_000)
    )
    + b"u",
    "a tensor as a name": b"}" + tensor() + b"Ns",
    "a long name again and again": text("a" * 1_000_000)
    + b"q\x000"
    + b"h\x00h\x00\x930" * 60_000
    + b"N",
    "many names of two texts": b"".join(
        text("a" * 250 + str(n)) + b"r" + struct.pack("<I", n) + b"0" for n in range(400)
    )
    + b"".join(
        b"j" + struct.pack("<I", a) + b"j" + struct.pack("<I", b) + b"\x930"
        for a in range(400)
        for b in range(400)
    )
    + b"N",
    "a view flag that is a tensor": tensor(more=b"}" + text("conj") + tensor() + b"s"),
    "a type without numbers": name("torch._utils._rebuild_tensor_v3")
    + b"("
    + storage()
    + b"K\x00K\x03\x85K\x01\x85\x89"
    + name("collections.OrderedDict")
    + b")R"
    + name("torch.bits8")
    + b"tR",
    "a number of two million digits": b"\x8b" + struct.pack("<I", 1_000_000) + b"\x7f" * 1_000_000,
    "a number in text": b"I" + b"9" * 2_000_000 + b"\n",
    "a long number in text": b"L" + b"9" * 4_000 + b"L\n",
    "a place in the memo of two billion": b"Nr\xff\xff\xff\x7f",
    "a length of 2**62 bytes": b"\x8e" + struct.pack("<Q", 2**62),
    "a length of 4 GiB": b"X\xff\xff\xff\xff",
    "a frame of 2**62 bytes": b"\x95" + struct.pack("<Q", 2**62) + b"N",
    "bytes of 2**40": name("builtins.bytearray") + number(2**40) + b"\x85R",
    "bytes of 2**40 in a list": name("builtins.bytearray") + b"](" + number(2**40) + b"e\x85R",
    "a size in a list": name("torch.FloatTensor") + b"](" + number(10**9) + b"e\x85R",
    "a sparse tensor of 10**12 numbers": name("torch._utils._rebuild_sparse_tensor")
    + b"("
    + name("torch.serialization._get_layout")
    + text("torch.sparse_coo")
    + b"\x85R("
    + tensor()
    + tensor()
    + number(10**12)
    + b"\x85\x88tt"
    + b"R",
    "a tensor of 10**12 numbers of one": tensor(number(10**12) + b"\x85", b"K\x00\x85"),
    "a tensor of 10**6 dimensions": tensor(
        b"(" + b"K\x01" * 10**6 + b"t", b"(" + b"K\x01" * 10**6 + b"t"
    ),
    "a tensor of 65 dimensions": tensor(b"(" + b"K\x01" * 65 + b"t", b"(" + b"K\x01" * 65 + b"t"),
    "an empty tensor of 2**62 rows": tensor(number(2**62) + b"K\x00\x86", b"K\x01K\x01\x86"),
    "an empty tensor of 2**63 rows": tensor(number(2**63) + b"K\x00\x86", b"K\x01K\x01\x86"),
    "a stride of 2**62": tensor(b"K\x02\x85", number(2**62) + b"\x85"),
    "a negative stride": tensor(b"K\x02\x85", number(-1) + b"\x85"),
    "a size that is a tensor": tensor(tensor() + b"\x85"),
    "a conjugated view of numbers": tensor(more=b"}" + text("conj") + b"\x88s"),
    "a negated view": tensor(more=b"}" + text("neg") + b"\x88s"),
    "flags that are not known": tensor(more=b"}" + text("grad") + b"\x88s"),
    "a million references to a tensor": tensor() + b"q\x000](" + b"h\x00" * 1_000_000 + b"e",
    "text encoded again and again": HUGE_TEXT
    + b"q\x000]("
    + (name("_codecs.encode") + b"h\x00" + text("latin1") + b"\x86R") * 2_000
    + b"e",
    "a set of a list again and again": b"]("
    + b"K\x01" * 100_000
    + b"eq\x000]("
    + (name("builtins.set") + b"h\x00\x85R") * 2_000
    + b"e",
    "a storage again and again": b"](" + storage() * 50_000 + b"e",
    "a storage of another size": storage(4),
    "a storage that is missing": storage(3, key="9"),
    "a storage beside the archive": storage(3, key="../../x"),
    "a storage with a key of a megabyte": storage(3, key="x" * 60_000),
    "a storage of 2**60 numbers": storage(2**60),
    "a storage of -3 numbers": storage(-3),
    "a storage of two types": b"](" + storage() + storage(3, kind="torch.IntStorage") + b"e",
    "a storage of doubles and floats": b"]("
    + storage()
    + storage(3, kind="torch.DoubleStorage")
    + b"e",
    "a million names": b"](" + b"".join(name(f"a.b{n}") for n in range(300_000)) + b"e",
    "a name of a megabyte": name("a." + "b" * 1_000_000),
    "a name with escape sequences": b"cos\nsys\x1b]0;x\x07tem\n)R",
    "nothing after the start": b"",
}


def make(content: bytes, folder: Path) -> None:
    """Write a file."""
    (folder / NAME).write_bytes(content)


def read(folder: Path) -> object:
    """Read the file as `adrbench attack` does."""
    return read_torch_file(folder / NAME)


def case(says: str, content: bytes) -> Case:
    """Return a case with a file of this content."""
    return Case(says, partial(make, content), read)


def zip_with_long_extras() -> bytes:
    """Return an archive with 16 MB of extra fields, in which each entry has many."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(250):
            info = zipfile.ZipInfo(f"archive/{index}")
            info.extra = struct.pack("<HH", 7, 0) * 16_000
            archive.writestr(info, b"")
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    return buffer.getvalue()


def unsafe_files() -> dict[str, bytes]:
    """Return files whose format, not their pickle, is odd."""
    good = zipped(b"\x80\x02N.")
    keys = b"\x80\x02]" + text("7") + b"a."
    return {
        "long extra fields": zip_with_long_extras(),
        "a key of no storage in the legacy format": legacy(b"\x80\x02N.", keys, bytes(16)),
        "a storage of another size in the legacy format": legacy(
            b"\x80\x02" + tensor() + b".", b"\x80\x02]" + text("0") + b"a.", b"\xff" * 20
        ),
        "no keys in the legacy format": legacy(b"\x80\x02" + tensor() + b".", b"\x80\x02N."),
        "an archive after a megabyte": bytes(2**20) + good,
        "an archive in an archive": zipped(b"\x80\x02N.", {"0": good}),
        "an archive cut in its directory": good[:-30],
        "an archive with a comment": good[:-2] + b"\x05\x00hello",
        "an archive without entries": b"PK\x05\x06" + bytes(18),
        "a directory of 4 GiB": good[:-10] + b"\xff\xff\xff\xff" + good[-6:],
    }


def file_cases() -> Iterator[Case]:
    """Yield files whose format is odd."""
    return (case(says, content) for says, content in unsafe_files().items())


def instruction_cases() -> Iterator[Case]:
    """Yield every instruction in every context."""
    return (case(says, zipped(pickled)) for says, pickled in instructions())


def call_cases() -> Iterator[Case]:
    """Yield every name with all arguments."""
    return (case(says, zipped(pickled)) for says, pickled in calls())


def program_cases() -> Iterator[Case]:
    """Yield every program, in both formats."""
    for (says, program), (form, write) in itertools.product(PROGRAMS.items(), FORMATS.items()):
        yield case(f"{says} ({form})", write(b"\x80\x04" + program + b"."))
