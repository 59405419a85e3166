"""Processes of one start meet, whatever those of the starts before have left in the store."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from iou_balanced.engine.rendezvous import fresh_part

TIMEOUT = timedelta(seconds=20)


def tcp_store():
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)


def client(server):
    return dist.TCPStore("127.0.0.1", server.port, is_master=False, timeout=TIMEOUT)


def start(server, delays):
    """Each process sets its key in the part that it gets; {rank: what it reads of all}."""
    found = {}

    def run(rank):
        time.sleep(delays[rank])
        part = fresh_part(client(server), rank, len(delays), TIMEOUT)
        part.set(str(rank), f"address {rank} of {id(found)}")
        found[rank] = [part.get(str(i)).decode() for i in range(len(delays))]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(delays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("delays", [(0,), (0, 0.2), (0.2, 0), (0, 0.1, 0.3, 0.2)])
def test_no_address_of_a_former_start(delays):
    server = tcp_store()
    for _ in range(3):
        found = start(server, delays)
        right = [f"address {i} of {id(found)}" for i in range(len(delays))]
        assert found == dict.fromkeys(range(len(delays)), right)


def test_after_a_process_that_died_before_it_met_the_others():
    server = tcp_store()
    client(server).set("iou_balanced/name/1", "of a process that is gone")
    assert set(start(server, (0, 0.3))) == {0, 1}


def test_a_process_that_does_not_come():
    server = tcp_store()
    client(server).set("iou_balanced/name/1", "of a process that is gone")
    with pytest.raises(TimeoutError, match="2 processes have not met within"):
        fresh_part(client(server), 0, 2, timedelta(seconds=0.3))
