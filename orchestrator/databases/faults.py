"""Every fault that a database reports, as data: what kind it is, and what to do next."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from orchestrator.outcomes import FailureKind

TRANSIENT = FailureKind.TRANSIENT
PERMANENT = FailureKind.PERMANENT
SERVER = FailureKind.SERVER
AMBIGUOUS = FailureKind.AMBIGUOUS
RUN = FailureKind.RUN


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One row: what a code asks for."""

    kind: FailureKind
    advice: str
    #: fewer connections at once would do
    crowded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Phrase:
    """A text that stands for a code where the driver gives none, or gives one for several faults."""

    pattern: re.Pattern[str]
    code: str
    #: None for the fault of the code
    fault: Fault | None = None


def phrase(pattern: str, code: str, fault: Fault | None = None) -> Phrase:
    """A phrase that is found anywhere in a text, whatever its case."""
    return Phrase(re.compile(pattern, re.IGNORECASE | re.DOTALL), code, fault)


WRONG_PASSWORD = Fault(
    PERMANENT, "Correct the user or the password in tenants.yaml; nothing is retried, to lock nobody out."
)
UNKNOWN_HOST = Fault(PERMANENT, "Correct the host name in tenants.yaml; nobody knows the one that is there.")
NO_NAME_SERVICE = Fault(TRANSIENT, "The name service of this machine does not answer: run again when it does.")
REFUSED = Fault(SERVER, "Check that the server runs and that host and port in tenants.yaml are right.")
UNREACHABLE = Fault(SERVER, "Check the network between here and the server, or raise timeouts.connect.")
ABSENT = Fault(PERMANENT, "Create the database, run again with --provision, or take the tenant out of tenants.yaml.")
TOO_MANY = Fault(
    TRANSIENT, "Lower the server's concurrency in tenants.yaml, or raise its connection limit.", crowded=True
)
STARTING = Fault(SERVER, "Wait until the server has started, then run again.")
LOST = Fault(AMBIGUOUS, "The connection was lost: run again, it reads the version first and goes on from there.")
CUT_OFF = Fault(TRANSIENT, "The connection was cut before anything was sent: run again.")
IDLE = Fault(
    AMBIGUOUS, "The revision paused for too long inside a transaction: do slow work outside of it, then run again."
)
LOCKED = Fault(
    TRANSIENT, "Somebody else holds a lock on the table: run again when they are done, or raise timeouts.lock."
)
TOO_SLOW = Fault(PERMANENT, "Raise timeouts.statement for this tenant, or split the statement.")
CANCELLED = Fault(PERMANENT, "Somebody cancelled the statement: ask them, then run again.")
DEADLOCK = Fault(TRANSIENT, "Two transactions waited for each other; run again, at a quieter time if it comes back.")
CONFLICT = Fault(TRANSIENT, "Another transaction changed the same rows first; run again.")
READ_ONLY = Fault(PERMANENT, "Connect to the primary, or lift the read-only mode of the server, database or role.")
FORBIDDEN = Fault(
    PERMANENT, "Grant the role what the statement needs, or name another one with `role:` in tenants.yaml."
)
DISK_FULL = Fault(SERVER, "Free disk space on the server before anything else runs there.")
TEMPORARY_SPACE = Fault(PERMANENT, "Raise the server's limit for temporary files, or split the statement.")
LOCK_TABLE_FULL = Fault(
    PERMANENT, "Too many objects in one transaction: set `transaction: revision`, or raise max_locks_per_transaction."
)
EXISTS = Fault(
    PERMANENT, "The schema differs from what its revision says: compare it, then mend it or stamp the tenant by hand."
)
MISSING = Fault(
    PERMANENT,
    "An object that earlier revisions should have made is not there: compare the schema with a healthy tenant.",
)
SYNTAX = Fault(RUN, "Correct the statement in the revision; it would fail for every tenant.")
DUPLICATES = Fault(PERMANENT, "Remove the duplicate rows of this tenant, then run `orchestrate retry`.")
ORPHANS = Fault(PERMANENT, "Mend the rows of this tenant that refer to nothing, then run `orchestrate retry`.")
NULLS = Fault(PERMANENT, "Fill the empty values of this tenant, then run `orchestrate retry`.")
CHECKED = Fault(PERMANENT, "Mend the rows of this tenant that break the check, then run `orchestrate retry`.")
UNFIT = Fault(PERMANENT, "Mend the values of this tenant that do not fit the new type, then run `orchestrate retry`.")
DEPENDED = Fault(
    PERMANENT, "Something else depends on it, perhaps a view of this tenant's own: drop or change that first."
)
NO_SCHEMA = Fault(PERMANENT, "Create the schema, run again with --provision, or correct `schema:` in tenants.yaml.")
IN_TRANSACTION = Fault(RUN, "Put the statement into `with op.get_context().autocommit_block():` in its revision.")
ENUM_VALUE = Fault(RUN, "A new enum value cannot be used in the transaction that adds it: set `transaction: revision`.")
ABORTED = Fault(PERMANENT, "The revision went on after an error that it swallowed: let the first error through.")
IN_USE = Fault(TRANSIENT, "Something still uses the object; close its connections, then run again.")
TOO_LONG = Fault(RUN, "Shorten the name in the revision; the server takes no longer ones.")
DEFINITION = Fault(PERMANENT, "Correct the definition of the table or key in the revision.")
DAMAGED = Fault(PERMANENT, "The file is damaged or no database; restore it from a backup.")
CANNOT_OPEN = Fault(PERMANENT, "Check the path in tenants.yaml and the permissions of the file and its folder.")
TOO_LARGE = Fault(PERMANENT, "Send less at once, or raise max_allowed_packet on the server.")
TLS = Fault(PERMANENT, "Check the certificates and the TLS settings in connect_args.")
NOT_READY = Fault(TRANSIENT, "The node is joining its cluster; run again when it is ready.")
RACE = Fault(
    TRANSIENT, "Somebody who does not take the tenant lock made the version table at the same time: find out who."
)
RAISED = Fault(PERMANENT, "A trigger, function or the revision itself raised this; read its message.")
INTERNAL = Fault(SERVER, "Look into the server's log; do not go on there before it is understood.")
BROKEN_DISK = Fault(PERMANENT, "The disk or the file system failed: look into the system's log before going on.")
UNKNOWN = Fault(PERMANENT, "Read the log of this target; it is not tried again by itself.")

#: by SQLSTATE, or by its class (two characters) where every code of the class asks for the same
POSTGRESQL: Mapping[str, Fault] = {
    "08": UNREACHABLE,
    "08000": LOST,
    "08003": LOST,
    "08006": LOST,
    "08007": LOST,
    "0A000": Fault(PERMANENT, "This server cannot do that: compare its version with the other tenants' servers."),
    "22": UNFIT,
    "22001": UNFIT,
    "22003": UNFIT,
    "22023": Fault(
        PERMANENT, "The server does not take a setting of this target: a role, for one, has to exist there."
    ),
    "22P02": UNFIT,
    "23": CHECKED,
    "23001": ORPHANS,
    "23502": NULLS,
    "23503": ORPHANS,
    "23505": DUPLICATES,
    "23514": CHECKED,
    "23P01": Fault(PERMANENT, "Mend the rows of this tenant that overlap, then run `orchestrate retry`."),
    "25001": IN_TRANSACTION,
    "25006": READ_ONLY,
    "25P02": ABORTED,
    "25P03": IDLE,
    "25P04": Fault(PERMANENT, "The transaction took longer than transaction_timeout: raise it for the role."),
    "28": WRONG_PASSWORD,
    "28000": Fault(PERMANENT, "Let the user in from here by pg_hba.conf, or correct the user in tenants.yaml."),
    "28P01": WRONG_PASSWORD,
    "2BP01": DEPENDED,
    "3D000": ABSENT,
    "3F000": NO_SCHEMA,
    "40": CONFLICT,
    "40001": CONFLICT,
    "40003": LOST,
    "40P01": DEADLOCK,
    "42501": FORBIDDEN,
    "42601": SYNTAX,
    "42622": TOO_LONG,
    "42701": EXISTS,
    "42703": MISSING,
    "42704": MISSING,
    "42710": EXISTS,
    "42723": EXISTS,
    "42804": UNFIT,
    "42846": UNFIT,
    "42883": MISSING,
    "42P01": MISSING,
    "42P04": EXISTS,
    "42P06": EXISTS,
    "42P07": EXISTS,
    "53": DISK_FULL,
    "53100": DISK_FULL,
    "53200": LOCK_TABLE_FULL,
    "53300": TOO_MANY,
    "53400": TEMPORARY_SPACE,
    "54": DEFINITION,
    "55000": Fault(PERMANENT, "The object is not in the state that the statement needs; see the message."),
    "55006": IN_USE,
    "55P03": LOCKED,
    "55P04": ENUM_VALUE,
    "57014": CANCELLED,
    "57P01": LOST,
    "57P02": LOST,
    "57P03": STARTING,
    "57P04": ABSENT,
    "57P05": LOST,
    "58": INTERNAL,
    "F0": INTERNAL,
    "P0": RAISED,
    "XX": INTERNAL,
}

#: in the order in which they are tried; the server writes the first few in its own language
POSTGRESQL_PHRASES: tuple[Phrase, ...] = (
    phrase(
        r"password authentication failed|no password supplied|role .* does not exist|role .* is not permitted to log in"
        r"|Passwort-Authentifizierung .* fehlgeschlagen|authentification par mot de passe échouée"
        r"|autentificación password falló|autenticação do tipo senha falhou|autenticazione con password fallita",
        "28P01",
    ),
    phrase(r"no pg_hba\.conf entry|pg_hba\.conf rejects|pg_hba\.conf", "28000"),
    phrase(
        r"database .* does not exist|Datenbank .* existiert nicht|base de données .* n'existe pas"
        r"|no existe la base de datos|banco de dados .* não existe|il database .* non esiste",
        "3D000",
    ),
    phrase(
        r"remaining connection slots are reserved|sorry, too many clients|too many connections for (?:role|database)"
        r"|schon zu viele Verbindungen|restlichen Verbindungsslots|trop de clients|demasiados clientes"
        r"|no more connections allowed|max_client_conn",
        "53300",
    ),
    phrase(
        r"the database system is (?:starting up|shutting down|in recovery|not yet accepting|not accepting)"
        r"|Datenbanksystem (?:startet|fährt)|système de bases de données (?:se lance|s'arrête|est en cours)"
        r"|sistema de base de datos está",
        "57P03",
    ),
    phrase(r"terminating connection due to idle-in-transaction timeout", "25P03"),
    phrase(r"terminating connection due to administrator command", "57P01"),
    phrase(r"terminating connection because of crash", "57P02"),
    # Over TLS the end of a session sounds like a fault of TLS.
    phrase(r"SSL SYSCALL error|SSL connection has been closed|unexpected eof while reading", "08006"),
    phrase(r"SSL|TLS|certificate|GSSAPI", "08P01", TLS),
    phrase(r"Temporary failure in name resolution|try again later", "08001", NO_NAME_SERVICE),
    phrase(
        r"could not translate host name|failed to resolve host|Name or service not known|nodename nor servname"
        r"|No address associated with hostname|getaddrinfo",
        "08001",
        UNKNOWN_HOST,
    ),
    phrase(r"Connection refused|No such file or directory", "08001", REFUSED),
    phrase(r"timeout expired|connection timeout|Connection timed out|No route to host|Network is unreachable", "08001"),
    phrase(
        r"server closed the connection|connection has been closed|consuming input failed"
        r"|the connection is (?:lost|closed)|connection (?:already|is) closed|connection not open"
        r"|Connection reset|Broken pipe|could not (?:receive|send) data",
        "08006",
    ),
)
#: names of hosts, databases and users, which may read like a fault
POSTGRESQL_NAMES = re.compile(r"\"[^\"\n]*\"|\bhost '[^'\n]*'")
#: PostgreSQL gives one code for a statement that took too long and for one that a person cancelled
STATEMENT_TIMEOUT = phrase(
    r"timeout|Zeitüberschreitung der Anfrage|délai d'exécution",
    "57014",
    TOO_SLOW,
)
#: libpq says so before anything was sent: whatever went wrong, nothing can have happened
POSTGRESQL_CONNECTING = re.compile(
    r"connection to server (?:at|on) .* failed|failed to resolve host|connection timeout"
)

#: by the server's error number
MYSQL: Mapping[str, Fault] = {
    "1005": DEFINITION,
    "1020": CONFLICT,
    "1021": DISK_FULL,
    "1030": INTERNAL,
    "1040": TOO_MANY,
    "1044": FORBIDDEN,
    "1045": WRONG_PASSWORD,
    "1046": Fault(PERMANENT, "Name the database in the tenant's URL."),
    "1047": NOT_READY,
    "1048": NULLS,
    "1049": ABSENT,
    "1050": EXISTS,
    "1051": MISSING,
    "1053": STARTING,
    "1054": MISSING,
    "1059": TOO_LONG,
    "1060": EXISTS,
    "1061": EXISTS,
    "1062": DUPLICATES,
    "1064": SYNTAX,
    "1067": DEFINITION,
    "1071": DEFINITION,
    "1072": MISSING,
    "1091": MISSING,
    "1103": TOO_LONG,
    "1114": DISK_FULL,
    "1118": DEFINITION,
    "1129": Fault(
        SERVER, "The server blocks this host: run `mariadb-admin flush-hosts` there, then look for the cause."
    ),
    "1130": Fault(PERMANENT, "Let the user in from this host, or correct the user in tenants.yaml."),
    "1138": NULLS,
    "1142": FORBIDDEN,
    "1143": FORBIDDEN,
    "1146": MISSING,
    "1153": TOO_LARGE,
    "1158": LOST,
    "1159": LOST,
    "1160": LOST,
    "1161": LOST,
    "1180": LOST,
    "1184": LOST,
    "1203": TOO_MANY,
    "1205": LOCKED,
    "1213": DEADLOCK,
    "1216": ORPHANS,
    "1217": ORPHANS,
    "1226": TOO_MANY,
    "1227": FORBIDDEN,
    "1264": UNFIT,
    "1265": Fault(
        PERMANENT,
        "Mend the values of this tenant that are empty or do not fit, then run `orchestrate retry`.",
    ),
    "1290": READ_ONLY,
    "1292": UNFIT,
    "1298": DEFINITION,
    "1317": CANCELLED,
    "1364": NULLS,
    "1366": UNFIT,
    "1370": FORBIDDEN,
    "1406": UNFIT,
    "1411": UNFIT,
    "1451": ORPHANS,
    "1452": ORPHANS,
    "1553": DEPENDED,
    "1690": UNFIT,
    "1698": WRONG_PASSWORD,
    "1792": READ_ONLY,
    "1826": EXISTS,
    "1836": READ_ONLY,
    "1927": LOST,
    "1969": TOO_SLOW,
    "2002": REFUSED,
    "2003": REFUSED,
    "2005": UNKNOWN_HOST,
    "2006": LOST,
    "2013": LOST,
    "2014": LOST,
    "2026": TLS,
    "2055": LOST,
    "3024": TOO_SLOW,
    "3058": DEADLOCK,
    "3100": INTERNAL,
    "3140": UNFIT,
    "3618": FORBIDDEN,
    "3730": DEPENDED,
    "3819": CHECKED,
    "3822": EXISTS,
    "3940": MISSING,
    "4025": CHECKED,
    "4031": LOST,
    "4166": DUPLICATES,
}
#: the driver's number 2003 stands for everything that goes wrong before the server answers
MYSQL_PHRASES: tuple[Phrase, ...] = (
    phrase(r"Temporary failure in name resolution", "2003", NO_NAME_SERVICE),
    phrase(r"Name or service not known|getaddrinfo|name resolution|Unknown .*server host", "2003", UNKNOWN_HOST),
    phrase(r"timed out|No route to host|Network is unreachable", "2003", UNREACHABLE),
    # Over TLS the end of a connection sounds like a fault of TLS.
    phrase(r"Connection reset|Broken pipe|EOF occurred in violation", "2003", CUT_OFF),
    phrase(r"\[SSL: |certificate verify failed", "2003", TLS),
)

#: by SQLite's primary or extended result code
SQLITE: Mapping[str, Fault] = {
    "1": UNKNOWN,
    "3": FORBIDDEN,
    "5": LOCKED,
    "6": LOCKED,
    "7": INTERNAL,
    "8": READ_ONLY,
    "9": TOO_SLOW,
    "10": BROKEN_DISK,
    "11": DAMAGED,
    "13": DISK_FULL,
    "14": CANNOT_OPEN,
    "15": CONFLICT,
    "17": CONFLICT,
    "18": TOO_LARGE,
    "19": CHECKED,
    "20": UNFIT,
    "23": FORBIDDEN,
    "26": DAMAGED,
    "275": CHECKED,
    "517": CONFLICT,
    "787": ORPHANS,
    "1299": NULLS,
    "1555": DUPLICATES,
    "1811": RAISED,
    "2067": DUPLICATES,
    "3091": UNFIT,
}
#: SQLite says 1 for everything that is wrong with a statement
SQLITE_PHRASES: tuple[Phrase, ...] = (
    phrase(r"error in (?:view|trigger|index)", "1", DEPENDED),
    phrase(r"already exists|duplicate column name", "1", EXISTS),
    phrase(r"no such (?:table|column|index|view|trigger)|has no column named", "1", MISSING),
    phrase(r"syntax error|incomplete input|unrecognized token", "1", SYNTAX),
    phrase(r"Cannot add a NOT NULL column|may not be NULL", "1", NULLS),
    phrase(r"within a transaction", "1", IN_TRANSACTION),
)

#: Alembic's own, which carry no code
ALEMBIC_PHRASES: tuple[Phrase, ...] = (
    phrase(
        r"expected to match (?:one|\w+) rows? when",
        "version_moved",
        Fault(AMBIGUOUS, "Somebody else migrated this target at the same time; run again, it reads the version first."),
    ),
    phrase(
        r"Can't locate revision identified by|No such revision or branch",
        "unknown_revision",
        Fault(
            PERMANENT,
            "The target is at a revision that the scripts do not have: deploy the newer code, never stamp over it.",
        ),
    ),
    phrase(
        r"Version table .* has more than one head|overlaps with other requested",
        "several_rows",
        Fault(
            PERMANENT,
            "The version table holds several rows, which one line of revisions never leaves: compare the schema, "
            "then delete the rows that are behind the others.",
        ),
    ),
    phrase(
        r"Multiple head revisions|more than one head|multiple heads",
        "multiple_heads",
        Fault(RUN, "Merge the heads with `alembic merge heads`, or ask for `heads`."),
    ),
    phrase(
        r"Cycle is detected|Loop is detected", "cycle", Fault(RUN, "Correct `down_revision` in the revision files.")
    ),
    phrase(
        r"is present more than once",
        "duplicate_revision",
        Fault(RUN, "Give one of the two revision files another id."),
    ),
    phrase(
        r"Ambiguous|matches more than one",
        "ambiguous_revision",
        Fault(RUN, "Write the whole revision id."),
    ),
)
MISSING_FILE = Fault(RUN, "A revision file of the chain is missing: bring it back into the versions folder.")
BROKEN_FILE = Fault(RUN, "Correct the Python of the revision file or of env.py; it would fail for every tenant.")
SCRIPTS = Fault(RUN, "Mend the revision scripts, or bring those of all workers to one state, then plan again.")

_TABLES = (POSTGRESQL, MYSQL, SQLITE)


def _codes(*wanted: Fault) -> frozenset[str]:
    return frozenset(code for table in _TABLES for code, fault in table.items() if fault in wanted)


#: two transactions got into each other's way, and one of them was undone
CONFLICT_CODES = _codes(DEADLOCK, CONFLICT)
#: the session slept inside a transaction
IDLE_CODES = _codes(IDLE)
#: the server, or its name, may just have changed places
MOVED_CODES = (_codes(READ_ONLY) - SQLITE.keys()) | {"08001", "2003", "2005"}
#: an object is there already
EXISTS_CODES = _codes(EXISTS) | {"1"}
