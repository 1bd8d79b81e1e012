"""The peer that `scripts/bench` measures beside Drawbridge: the same /items on the same table, as a FastAPI team writes it.

FastAPI with pydantic v2 response models (serialized by pydantic itself, which FastAPI's documentation recommends over
orjson), SQLAlchemy's asyncio ORM on asyncpg (which prepares each statement once per connection), one pool per worker.
It does less than Drawbridge: no request ids, no ETags, no cursors, no limits, no access log (uvicorn's is switched off).

    DATABASE_URL=postgresql+asyncpg://… uvicorn app:app --workers N --loop uvloop --http httptools --no-access-log
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Connections of each worker. On two cores 4, 8 and 16 came out alike.
POOL_SIZE = int(os.environ.get("POOL_SIZE", "8"))

engine = create_async_engine(os.environ["DATABASE_URL"], pool_size=POOL_SIZE, max_overflow=0)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ItemOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    description: str | None
    created_at: datetime


class ItemIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    description: str | None = Field(default=None, max_length=4000)


async def session() -> AsyncIterator[AsyncSession]:
    async with new_session() as opened:
        yield opened


Session = Annotated[AsyncSession, Depends(session)]
app = FastAPI()


@app.get("/ready")
async def ready(session: Session) -> None:
    await session.execute(text("SELECT 1"))


@app.post("/items", status_code=201)
async def create_item(item: ItemIn, session: Session, response: Response) -> ItemOut:
    stored = Item(id=uuid4(), name=item.name, description=item.description)
    session.add(stored)
    await session.commit()
    response.headers["Location"] = f"/items/{stored.id}"
    return stored


@app.get("/items")
async def list_items(
    session: Session, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[ItemOut]:
    newest = select(Item).order_by(Item.created_at.desc(), Item.id.desc()).limit(limit)
    return (await session.scalars(newest)).all()


@app.get("/items/{id}")
async def find_item(id: UUID, session: Session) -> ItemOut:
    item = await session.get(Item, id)
    if item is None:
        raise HTTPException(404)
    return item
