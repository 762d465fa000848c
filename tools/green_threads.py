"""What the scripts for gdb and lldb share: green threads of greenling, read from the raw memory of a program.

The program has a table for debuggers, the symbol GREENLING_DEBUG, with offsets and words (see src/switch/debugger.rs).
From there on all is read from memory, since most programs have no type information. A script sets `target`, by which
this module asks its debugger:

    architecture()             the name of the processor
    read(address, size)        bytes; raises Trouble if there are none
    threads()                  the OS threads
    number(thread)             the kernel's number of one
    is_valid(thread)           whether it is still there
    stack_pointers(thread)     the stack pointers of its innermost frames, the first one before the others
    register(thread, name)     a register of its innermost frame
    now()                      the program's monotonic clock in nanoseconds, if it is this machine's and still runs
    tables()                   the addresses of GREENLING_DEBUG, one for each copy of the crate
"""

import re
import struct

target = None

MAGIC = b"greenling debug\0"
VERSION = 2

# The most fibers of a hub that `green` lists one by one.
MOST = 200

# Kinds of records, and states (src/switch/debug_list.rs, src/switch/state.rs).
ROOT, CHUNK = 2, 3
UNUSED, POOLED, RUNNABLE, DELIVERED, PARKED, SWITCHED, FINISHED, NOTIFIED = range(8)

# For each processor: names of registers, the three words that corosensei saves at a suspension, lowest address first,
# and what it adds to the stack pointer on the way back; the same for a caller of resume, at the end of a parent link.
# Last, where a thread pointer has the table of TLS blocks.
PROCESSORS = {
    "x86-64": ("rip", "rsp", ("rip", "rbx", "rbp"), 24, ("rbp", "rip", "rbx"), 24, "fs_base", 8),
    "aarch64": ("pc", "sp", ("x19", "x29", "pc"), 32, ("x29", "pc", "x19"), 32, "tpidr", 0),
}


class Trouble(Exception):
    """What the user is told instead of an answer."""


def processor():
    name = target.architecture()
    for key, found in PROCESSORS.items():
        if key in name:
            return found
    raise Trouble("green: no green threads on " + name)


def read(address, size):
    return target.read(address, size)


def words(address, count):
    return struct.unpack("<%dQ" % count, read(address, 8 * count))


def word(address):
    return words(address, 1)[0]


def text(address, length):
    """The string at `address`; a length that none has is that of a field that means something else."""
    return read(address, length).decode("utf-8", "replace") if length < 4096 else "?"


class Table:
    """The descriptor of one copy of the crate in the program."""

    def __init__(self, address):
        head = read(address, 24)
        if head[:16] != MAGIC:
            raise Trouble("green: no table of greenling at %#x" % address)
        version, size = struct.unpack("<II", head[16:])
        if version != VERSION:
            raise Trouble("green: the program has a table of version %d; this script reads %d" % (version, VERSION))
        self.read_table(read(address, size))

    def read_table(self, memory):
        """The fields of `Descriptor`, in their order."""
        self.first, *tables = struct.unpack_from("<7Q", memory, 24)
        self.reasons, self.held, self.foreign = (
            [text(*words(at + 16 * index, 2)) for index in range(count)] for at, count in zip(tables[::2], tables[1::2])
        )
        rest = struct.unpack_from("<19I", memory, 80)
        self.guard, self.colour_step, self.colours, self.block_size, self.coroutine_size = rest[:5]
        self.root_main, self.root_loaded, self.root_os_pointer = rest[5:8]
        names = "coroutine pointer link_below state spawned_at id name green_thread reason since partner".split()
        self.block = dict(zip(names, rest[8:]))

    def records(self, wanted):
        at = self.first
        while at:
            following, kind, *values = words(at, 6)
            if kind == wanted:
                yield values
            at = following


class Fiber:
    """A green thread, a greenlet or main."""

    def __init__(self, hub, block, slot):
        table = hub.table
        self.hub, self.block, self.slot = hub, block, slot
        self.memory = read(block, table.block_size)
        self.id = self.field("id")
        self.state = self.field("state", "<B")
        self.is_main = slot is None
        self.pointer = self.field("pointer")
        # Where the parent link lies, by which a fiber returns to what resumed it.
        self.link = block - 16 * self.field("link_below", "<H")
        at = table.block["coroutine"]
        inside = [] if self.is_main else [
            value for value in struct.unpack_from("<%dQ" % (table.coroutine_size // 8), self.memory, at)
            if slot + table.guard < value < block + 16
        ]
        # The stack pointer of the suspended fiber, and the one it began with. Equal: it has not begun.
        self.saved, self.initial = (min(inside), max(inside)) if len(inside) >= 2 else (None, None)
        name, length = struct.unpack_from("<2Q", self.memory, table.block["name"])
        # Behind the two counts of an `Arc`.
        self.name = text(name + 16, length) if name else None

    def field(self, name, format="<Q"):
        return struct.unpack_from(format, self.memory, self.hub.table.block[name])[0]

    def has(self, address):
        """Whether `address` lies on the stack of this fiber."""
        return not self.is_main and self.slot <= address < self.block + 16

    def label(self):
        number = "%d.%d" % (self.hub.number, self.id) if self.hub.several else "%d" % self.id
        what = "main" if self.is_main else self.name and '"%s"' % self.name
        greenlet = not self.is_main and not self.field("green_thread", "<B")
        return " ".join(filter(None, ["#" + number, greenlet and "greenlet", what]))

    def reason(self):
        """What the fiber waits for, in words."""
        table, at = self.hub.table, self.hub.table.block["reason"]
        memory = self.memory[at:at + 24]
        byte = lambda names: names[memory[1]] if memory[1] < len(names) else "?"
        first, second = struct.unpack_from("<2Q", memory, 8)
        if memory[0] >= len(table.reasons):
            return "waits"
        pattern = table.reasons[memory[0]]
        if "#{id}" in pattern and first == 0:
            pattern = pattern.replace(" that #{id} has", "")
        return pattern.format(
            id=first, i32=struct.unpack_from("<i", memory, 4)[0], str=text(first, second) if "{str}" in pattern else "",
            hex=hex(first), holder="#%d of hub %d" % (second, first) if first else "several threads",
            held=byte(table.held), foreign=byte(table.foreign),
        )

    def spawned(self):
        """Where the fiber was spawned: file and line, as a `Location` has them."""
        file, length, line_column = words(self.field("spawned_at"), 3)
        # Newer versions of std count the zero byte behind the name.
        return "%s:%d:%d" % (text(file, length).rstrip("\0"), line_column & 0xffffffff, line_column >> 32)

    def describe(self):
        if self.hub.running is self:
            what = "is running"
        elif self.state in (RUNNABLE, DELIVERED, NOTIFIED):
            what = "can run, and waits for its turn"
        elif self.state == SWITCHED:
            what = "waits in a switch to #%d" % self.field("partner")
        elif self.state == PARKED:
            what = self.reason()
            now = target.now()
            if now is not None:
                what += ", for %.1f s" % max(0, (now - self.field("since")) / 1e9)
        else:
            what = "has ended"
        return what if self.is_main else "%s, spawned at %s" % (what, self.spawned())

    def registers(self):
        """The registers with which the fiber goes on; None if it runs, or has not begun."""
        _, sp, at_suspension, step, at_resume, step_back, _, _ = processor()
        if self.block in self.hub.active:
            # It has resumed another fiber, and waits in that call: its registers are at the end of the link.
            at, names, step = self.hub.active[self.block], at_resume, step_back
        elif self.is_main or self.saved is None or self.saved == self.initial:
            return None
        else:
            at, names = self.saved, at_suspension
        return dict(zip(names, words(at, 3)), **{sp: at + step})


class Hub:
    """An OS thread with a root, and its fibers."""

    def __init__(self, table, address, number, os_thread, several):
        self.table, self.address, self.number, self.several = table, address, number, several
        self.thread = next((thread for thread in target.threads() if target.number(thread) == os_thread), None)
        self.os_thread = os_thread
        # What is active: main and the deputy, by block, with the address of the registers that each saved.
        self.active = {}
        self.running = None
        self.fibers = [Fiber(self, word(address + table.root_main), None)]
        self.fibers += sorted((Fiber(self, *place) for place in self.blocks()), key=lambda fiber: fiber.id)
        if self.thread is not None and target.is_valid(self.thread):
            self.find_active()

    def blocks(self):
        """The control blocks in use, each with its slot."""
        table = self.table
        for start, number, shift, used in table.records(CHUNK):
            for index in range(used if number == self.number else 0):
                slot = start + (index << shift)
                top = slot + (1 << shift) - index % table.colours * table.colour_step
                block = top - table.block_size
                if read(block + table.block["state"], 1)[0] not in (UNUSED, POOLED):
                    yield block, slot

    def find_active(self):
        """Finds the fiber that runs, by the OS thread's stack pointer, and those that wait for it in a resume."""
        self.running = self.fiber_at(target.stack_pointers(self.thread)) or self.fibers[0]
        fiber = self.running
        while not fiber.is_main:
            link = word(fiber.link)
            fiber = next((other for other in self.fibers if other.has(link)), self.fibers[0])
            if fiber.block in self.active:
                break
            self.active[fiber.block] = link

    def fiber_at(self, stack_pointers):
        """The fiber on whose stack the first frames are. Those of a signal handler may be elsewhere."""
        for sp in stack_pointers:
            for fiber in self.fibers:
                if fiber.has(sp):
                    return fiber
        return None

    def thread_pointer(self, fiber):
        """The thread pointer under which `fiber` runs."""
        if fiber.pointer:
            return fiber.pointer
        own = word(self.address + self.table.root_os_pointer)
        return own or target.register(self.thread, processor()[6])


def hubs():
    found = []
    addresses = target.tables()
    if not addresses:
        raise Trouble("green: the program has no greenling (no symbol GREENLING_DEBUG)")
    for table in map(Table, dict.fromkeys(addresses)):
        roots = sorted(table.records(ROOT), key=lambda values: values[1])
        found += [(table, *values[:3]) for values in roots]
    return [Hub(*values, several=len(found) > 1) for values in found]


def listing(most, is_seen):
    """The lines of all fibers, those in groups of a hub with more than `most`; a star for those that are seen."""
    for hub in hubs():
        yield "hub %d: OS thread %d%s, %d green threads and greenlets, and main" % (
            hub.number, hub.os_thread, "" if hub.thread else ", which is not here", len(hub.fibers) - 1)
        if most is not None and len(hub.fibers) > most:
            yield from groups(hub.fibers)
            continue
        for fiber in hub.fibers:
            yield "%s %s %s" % ("*" if is_seen(fiber) else " ", fiber.label(), fiber.describe())


def groups(fibers):
    """A line for fibers that do the same, whatever for how long, and wait for the same."""
    found = {}
    for fiber in fibers:
        found.setdefault(re.sub(r", for [0-9.]+ s", "", fiber.describe()), []).append(fiber)
    for what, members in sorted(found.items(), key=lambda group: -len(group[1])):
        first = ", ".join(fiber.label() for fiber in members[:3])
        yield "  %6d: %s%s %s" % (len(members), first, ", .." if len(members) > 3 else "", what)


def find(who, found, is_here):
    """The fiber with this id, HUB.ID or name. Those for whose OS thread `is_here` go first."""
    hub, dot, id = who.rpartition(".")
    fibers = [fiber for each in found for fiber in each.fibers if fiber.state != FINISHED]
    if id.isdecimal() and (hub.isdecimal() or not dot):
        matching = [
            fiber for fiber in fibers if fiber.id == int(id) and (not dot or fiber.hub.number == int(hub))
        ]
    else:
        matching = [fiber for fiber in fibers if who in (fiber.name, "main" if fiber.is_main else None)]
    if not matching:
        raise Trouble("green: there is no green thread %s; `green` lists them" % who)
    mine = [fiber for fiber in matching if fiber.hub.thread is not None and is_here(fiber.hub.thread)]
    matching = mine if len(matching) > 1 and len(mine) == 1 else matching
    if len(matching) > 1:
        raise Trouble("green: which one? " + ", ".join(fiber.label() for fiber in matching))
    return matching[0]


# What lldb's script keeps, since lldb loads it more than once: what it shows as threads (identity, name and registers of
# each), at which stop; the debuggers that have its command; the functions that lldb is told to unwind by their tables.
view = []
view_stop = None
debuggers = set()
by_table = set()
