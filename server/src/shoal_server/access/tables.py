"""Tables of people, their sessions, API tokens and failed log-ins."""

from sqlmodel import Field, SQLModel


class Person(SQLModel, table=True):
    """Somebody who logs in with a password."""

    __tablename__ = "people"
    name: str = Field(primary_key=True)
    role: str
    password_hash: str
    created_at: float


class LoginSession(SQLModel, table=True):
    """A browser that is logged in, known by the hash of its cookie."""

    __tablename__ = "login_sessions"
    token_hash: str = Field(primary_key=True)
    person: str = Field(foreign_key="people.name", ondelete="CASCADE", index=True)
    created_at: float
    expires_at: float


class ApiToken(SQLModel, table=True):
    """A token of a pipeline or of a person's command line, known by its hash."""

    __tablename__ = "api_tokens"
    name: str = Field(primary_key=True)
    token_hash: str = Field(unique=True)
    prefix: str
    """The first characters, by which a person recognises the token."""
    role: str
    created_by: str
    """Whose it is, such as `person:ada`: it ends with that person, and reaches no further than that person does."""
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None


class LoginFailures(SQLModel, table=True):
    """How often logging in failed for one name or from one address."""

    __tablename__ = "login_failures"
    subject: str = Field(primary_key=True)
    failures: int
    last_at: float
